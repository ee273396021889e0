"""The small pure rooms: durations, names, sessions, events, diagnoses, the callback's port, Kubernetes' quantities."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.callback import port_of
from hybridspawner.diagnose import kubernetes as pods
from hybridspawner.diagnose import slurm as diagnose
from hybridspawner.duration import format_duration, parse_duration, spoken_duration
from hybridspawner.events import EventLog
from hybridspawner.names import directory_name
from hybridspawner.session import Job, State, new_mark
from hybridspawner.targets.kubernetes.capacity import nodes_from, quantity


@given(st.integers(1, 900 * 86400))
def test_durations_round_trip(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
    assert spoken_duration(seconds)


@given(st.text(), st.text())
def test_directories_are_one_component_each_and_never_shared(one: str, other: str) -> None:
    name = directory_name(one)
    assert "/" not in name and "\0" not in name and name not in (".", "..")
    assert one == other or name != directory_name(other)


def test_marks_differ() -> None:
    assert len({new_mark("hub") for _ in range(1000)}) == 1000


def test_a_job_survives_the_database_and_strange_state_does_not_stop_a_hub() -> None:
    job = Job("m").to(State.QUEUED, job_id="7").to(State.UNKNOWN).to(State.RUNNING, host="n", port=1)
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    for strange in (None, 1, [], {}, {"mark": 1, "state": "x"}, {"job_id": "1"}):
        assert Job.from_json(strange) is None


@pytest.mark.parametrize("state", [s for s in State if s is not State.GONE])
def test_nothing_comes_back_from_gone(state: State) -> None:
    with pytest.raises(ValueError, match="cannot go from gone"):
        Job("m", State.GONE).to(state)


async def test_late_tabs_see_everything_and_all_end() -> None:
    log = EventLog()
    log.append("one", 10)
    early = asyncio.create_task(_collect(log))
    await asyncio.sleep(0)
    log.append("two", 50)
    log.append("two", 50)  # said twice, shown once
    log.append("three", 30)  # the bar does not jump back
    late = asyncio.create_task(_collect(log))
    await asyncio.sleep(0)
    log.close()
    log.append("after the end")
    assert await early == await late == [("one", 10), ("two", 50), ("three", 50)]


async def _collect(log: EventLog) -> list[tuple[str, int | None]]:
    return [(event.message, event.percent) async for event in log.follow()]


def test_events_are_escaped() -> None:
    log = EventLog()
    log.append("<b>", detail="<script>")
    assert "<script>" not in log.events[0].as_progress()["html_message"]


@pytest.mark.parametrize("body", [b'{"port": 1}', b'{"port": 65535}'])
def test_ports(body: bytes) -> None:
    assert port_of(body) in (1, 65535)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"port": 0}',
        b'{"port": 65536}',
        b'{"port": true}',
        b'{"port": "80"}',
        b'{"port": 80.0}',
        b'{"port": 80, "ip": "x"}',
        b"\xff",
        b'{"port": null}',
    ],
)
def test_what_is_no_port(body: bytes) -> None:
    with pytest.raises(ValueError, match="port"):
        port_of(body)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("sbatch: error: invalid partition specified: x", "invalid_partition"),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "invalid_account",
        ),
        ("sbatch: error: Batch job submission failed: Requested reservation is invalid", "invalid_reservation"),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            "time_limit",
        ),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "no_such_node"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", "limit"),
        ("something new", "refused"),
    ],
)
def test_refusals_keep_slurm_s_words_as_evidence(words: str, reason: str) -> None:
    failure = diagnose.refused_submission(words)
    assert failure.reason == reason and failure.evidence == words and failure.remedy


def test_the_log_tells_the_cause_of_an_end() -> None:
    failure = diagnose.ended_job("FAILED", "NonZeroExitCode", 1, "ModuleNotFoundError: No module named 'jupyterhub'")
    assert "lacks JupyterHub" in failure.why
    assert diagnose.ended_job("TIMEOUT", "", None, "").reason == "timeout"


def test_pods() -> None:
    waiting = {
        "status": {"containerStatuses": [{"name": "notebook", "state": {"waiting": {"reason": "ErrImagePull"}}}]}
    }
    ended = {
        "status": {
            "containerStatuses": [
                {"name": "notebook", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
            ]
        }
    }
    creating = {
        "status": {"containerStatuses": [{"name": "notebook", "state": {"waiting": {"reason": "ContainerCreating"}}}]}
    }
    assert (pods.pod_failure(waiting) or pytest.fail()).reason == "image"
    assert (pods.pod_failure(ended) or pytest.fail()).reason == "memory"
    assert pods.pod_failure(creating) is None and pods.pod_failure({}) is None


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2Gi", 2**31), ("4", 4), ("1e3", 1000), ("128974848", 128974848), ("1k", 1000)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1Kb", "--1", "1 2"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity(text)


def test_free_gpus_are_allocatable_minus_requests() -> None:
    node = {
        "metadata": {"name": "n"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "4", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    pod = {
        "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "1500m", "nvidia.com/gpu": "3"}}}]},
        "status": {"phase": "Running"},
    }
    done = {**pod, "status": {"phase": "Succeeded"}}
    (capacity,) = nodes_from([node], [pod, done], "nvidia.com/gpu")
    assert capacity.gpus_free == {"": 1} and capacity.cpus_free == 6.5 and capacity.usable
    (cordoned,) = nodes_from([{**node, "spec": {"unschedulable": True}}], [], "nvidia.com/gpu")
    assert not cordoned.usable
