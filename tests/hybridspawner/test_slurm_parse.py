"""Slurm's own output, as it is and as it might be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.targets.slurm import parse
from hybridspawner.targets.slurm.script import directive, line

SQUEUE = (
    "7|RUNNING|nid000001|2026-11-22T01:00:00|10|normal|ada|None\n8|PENDING|n/a|N/A|9|normal|ada|Resources\n"
    "9_[1-3]|PENDING||N/A|8|normal,debug|bob|a|b\n\n"
)


def sinfo_line(name: str, state: str, cpus: str, partition: str, have: str, used: str) -> str:
    values = (name, state, cpus, "870000", "0", partition, have, used)
    return "".join(v.ljust(int(f.split(":")[1])) for v, f in zip(values, parse.SINFO_FIELDS.split(","), strict=True))


def test_squeue() -> None:
    jobs = parse.squeue(SQUEUE)
    assert jobs["7"].host == "nid000001" and jobs["7"].reason == "" and not jobs["7"].pending
    assert jobs["8"].pending and jobs["8"].host == "" and jobs["8"].reason == "Resources"
    assert jobs["9_[1-3]"].reason == "a|b"


@pytest.mark.parametrize(
    ("output", "number"), [("12\n", "12"), ("12;cluster\n", "12"), ("sbatch: lua: hello\n13\n", "13")]
)
def test_job_id(output: str, number: str) -> None:
    assert parse.job_id(output) == number


@pytest.mark.parametrize("output", ["", "\n", "Submitted batch job 12", "-1"])
def test_no_job_id(output: str) -> None:
    with pytest.raises(ValueError, match="no job id"):
        parse.job_id(output)


def test_a_node_of_two_partitions_is_one_node() -> None:
    gpus = ("gpu:gh200:4(S:0-3)", "gpu:gh200:1(IDX:0)")
    output = "\n".join(sinfo_line("nid000001", "mixed", "72/216/0/288", p, *gpus) for p in ("normal*", "debug"))
    (node,) = parse.sinfo(output)
    assert node.partitions == {"normal", "debug"}
    assert (node.cpus, node.cpus_free, node.gpus, node.gpus_free) == (288, 216, {"gh200": 4}, {"gh200": 3})
    assert node.memory_gb == pytest.approx(912.3, abs=0.1)


@pytest.mark.parametrize(
    "state", ["down", "down*", "drained", "draining", "idle*", "maint", "reserved", "powered_down"]
)
def test_nodes_out_of_service(state: str) -> None:
    (node,) = parse.sinfo(sinfo_line("n", state, "0/288/0/288", "p", "gpu:4", "gpu:0"))
    assert not node.usable


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:4", {"": 4}),
        ("gpu:gh200:4(S:0-3)", {"gh200": 4}),
        ("gpu:gh200:0(IDX:N/A)", {"gh200": 0}),
        ("nic:2,gpu:a100:2,gpu:h100:1", {"a100": 2, "h100": 1}),
        ("gpu:a100-80:4", {"a100-80": 4}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_gres(text: str, counts: dict[str, int]) -> None:
    assert dict(parse.gres_counts(text)) == counts


def test_records_of_ended_jobs() -> None:
    record = parse.scontrol_job(
        "JobId=5 JobName=x JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0 BatchHost=nid000001"
    )
    assert record is not None and record[1].ended and record[1].exit_code == 3
    records = parse.sacct("5|CANCELLED by 1000|0:15|None\n5.batch|CANCELLED|0:15|\n6|RUNNING|0:0|None\n")
    assert records["5"].state == "CANCELLED" and records["5"].exit_code == 143 and not records["6"].ended
    assert parse.scontrol_job("") is None and parse.sacct("") == {}


def test_a_comment_cannot_change_a_job_s_record() -> None:
    record = parse.scontrol_job("JobId=5 UserId=ada(1000) JobState=RUNNING Comment=x JobState=FAILED UserId=bob(1)")
    assert record is not None and record[1].state == "RUNNING" and record[1].user == "ada"


@given(st.text())
def test_parsers_survive_anything(text: str) -> None:
    parse.squeue(text)
    parse.scontrol_job(text)
    parse.sacct(text)
    parse.gres_counts(text)


@given(st.text())
def test_a_directive_is_one_word(text: str) -> None:
    try:
        assert directive(text) == text and len(text.split()) == 1 and text.isprintable()
    except ValueError:
        pass
    try:
        assert "\n" not in line(text) and "\r" not in line(text)
    except ValueError:
        pass
