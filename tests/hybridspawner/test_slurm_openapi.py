"""Slurm's REST API in its shapes: v0.0.38 as the test cluster answers, later ones as their documentation has them."""

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.targets.slurm import openapi
from hybridspawner.targets.slurm.directives import Directive, DirectiveError, directives, megabytes, minutes
from hybridspawner.targets.slurm.sealed import seal

SCRIPT = """#!/bin/bash
#SBATCH --job-name=jupyter-ada
#SBATCH --output=/home/ada/%j.log
#SBATCH --export=ALL
#SBATCH --partition=normal
#SBATCH --nodes=2
#SBATCH --time=1-02:00:30
#SBATCH --cpus-per-task=72
#SBATCH --mem=850G
#SBATCH --gres=gpu:gh200:4
#SBATCH --exclusive

echo hello
#SBATCH --account=too-late
"""
INTEGER, STRING, BOOLEAN = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
NUMBER = {"type": "object", "properties": {"set": BOOLEAN, "infinite": BOOLEAN, "number": INTEGER}}
STRINGS = {"type": "array", "items": STRING}


def document(version: str, job: dict[str, Any], accounting: bool = True) -> dict[str, Any]:
    """An OpenAPI document in the form of Slurm's own."""
    body = {"$ref": f"#/components/schemas/{version}_job_submission"}
    submit = {"post": {"requestBody": {"content": {"application/json": {"schema": body}}}}}
    paths = {f"/slurm/{version}/job/submit": submit, f"/slurm/{version}/jobs": {}}
    if accounting:
        paths[f"/slurmdb/{version}/jobs"] = {}
    schemas = {
        f"{version}_job_submission": {"properties": {"job": {"$ref": f"#/components/schemas/{version}_job"}}},
        f"{version}_job": {"properties": job},
    }
    return {"paths": paths, "components": {"schemas": schemas}}


COMMON = {
    **dict.fromkeys(
        ("name", "standard_output", "partition", "account", "comment", "current_working_directory"), STRING
    ),
    "cpus_per_task": INTEGER,
}
OLD = document(
    "v0.0.38",
    {
        **COMMON,
        **{"gres": STRING, "exclusive": STRING, "environment": {"type": "object"}, "time_limit": INTEGER},
        **{"memory_per_node": INTEGER, "nodes": {"type": "array", "items": INTEGER, "maxItems": 2}},
    },
)
NEW = document(
    "v0.0.41",
    {
        **COMMON,
        **{"tres_per_node": STRING, "shared": STRINGS, "environment": STRINGS, "time_limit": NUMBER},
        **{"memory_per_node": NUMBER, "nodes": STRING, "script": STRING},
    },
)


def test_a_job_for_v0_0_38() -> None:
    body = openapi.submission(openapi.choose(OLD), SCRIPT, {"A": "b=c\n"}, "mark", "/home/ada")
    assert body["script"] == SCRIPT and body["job"] == {
        "name": "jupyter-ada",
        "standard_output": "/home/ada/%j.log",
        "partition": "normal",
        "nodes": [2, 2],
        "time_limit": 1561,
        "cpus_per_task": 72,
        "memory_per_node": 870400,
        "gres": "gpu:gh200:4",
        "exclusive": "true",
        "comment": "mark",
        "current_working_directory": "/home/ada",
        "environment": {"A": "b=c\n"},
    }


def test_a_job_for_later_versions() -> None:
    job = openapi.submission(openapi.choose(NEW), SCRIPT, {"A": "b=c\n"}, "mark", "/home/ada")["job"]
    assert job["time_limit"] == {"set": True, "infinite": False, "number": 1561}
    assert job["tres_per_node"] == "gres/gpu:gh200:4" and job["shared"] == ["none"] and job["nodes"] == "2"
    assert job["environment"] == ["A=b=c\n"] and job["script"] == SCRIPT


@pytest.mark.parametrize("line", ["--nodelist=n1", "--array=1-3", "--cpus-per-task=many", "word", "--mem=all"])
def test_what_cannot_be_said_is_refused_and_not_left_out(line: str) -> None:
    with pytest.raises(DirectiveError):
        openapi.submission(openapi.choose(OLD), f"#!/bin/bash\n#SBATCH {line}\n", {}, "m", "/")


def test_the_newest_known_version_is_chosen() -> None:
    both = {"paths": {**OLD["paths"], **NEW["paths"], "/slurm/v0.0.99/job/submit": {}}}
    both["components"] = {"schemas": {**OLD["components"]["schemas"], **NEW["components"]["schemas"]}}
    assert openapi.choose(both).version == "v0.0.41"
    assert not openapi.choose(document("v0.0.40", {"environment": STRINGS}, accounting=False)).accounting
    with pytest.raises(openapi.UnreadableAnswer, match=r"v0\.0\.99"):
        openapi.choose({"paths": {"/slurm/v0.0.99/job/submit": {}}})


JOB_38 = {
    **{"job_id": 7, "job_state": "RUNNING", "batch_host": "nid000001", "start_time": 1795327607, "exit_code": 0},
    **{"state_reason": "None", "partition": "normal", "priority": 42, "user_name": "ada", "comment": "mark"},
}
JOB_41 = {
    **JOB_38,
    "job_state": ["RUNNING"],
    "start_time": {"set": True, "infinite": False, "number": 1795327607},
    "priority": {"set": True, "infinite": False, "number": 42},
    "exit_code": {"status": ["SUCCESS"], "return_code": {"set": True, "infinite": False, "number": 0}},
}


@pytest.mark.parametrize("job", [JOB_38, JOB_41])
def test_a_running_job(job: dict[str, Any]) -> None:
    ((mark, reading),) = openapi.jobs({"jobs": [job], "errors": []}).values()
    assert mark == "mark" and (reading.job_id, reading.state, reading.host) == ("7", "RUNNING", "nid000001")
    assert reading.priority == 42 and reading.user == "ada" and reading.start.startswith("2026-11-2")
    assert reading.reason == "" and reading.exit_code is None


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ("COMPLETED", "COMPLETED"),
        (["COMPLETED", "COMPLETING"], "COMPLETING"),
        (["PENDING", "REQUEUED"], "REQUEUED"),
        (["RUNNING", "CONFIGURING"], "CONFIGURING"),
        (["CANCELLED"], "CANCELLED"),
    ],
)
def test_a_job_that_still_holds_its_nodes_has_not_ended(states: Any, state: str) -> None:
    assert openapi.job_state(states) == state


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (0, 0),
        (1792, 7),
        (9, 137),
        ({"status": "ERROR", "return_code": 7}, 7),
        ({"status": ["ERROR"], "return_code": {"set": True, "infinite": False, "number": 7}, "signal": {"id": {"set": False, "number": 0}}}, 7),
        ({"status": "SIGNALED", "return_code": None, "signal": {"signal_id": 9, "name": "Killed"}}, 137),
        ({"status": ["SIGNALED"], "return_code": {"set": False}, "signal": {"id": {"set": True, "number": 15}}}, 143),
        ({"set": True, "infinite": False, "number": 256}, 1),
        (None, None),
    ],
)  # fmt: skip
def test_exit_codes(code: Any, status: int | None) -> None:
    assert openapi.exit_code(code) == status


def test_records_of_accounting() -> None:
    old = {
        "job_id": 5,
        "state": {"current": "FAILED", "reason": "None"},
        "exit_code": {"return_code": 0},
        "user": "ada",
    }
    new = {
        "job_id": 6,
        "state": {"current": ["TIMEOUT"], "reason": "TimeLimit"},
        "exit_code": {"return_code": {"number": 0}},
    }
    records = openapi.records({"jobs": [old, new]})
    assert records["5"].exit_code is None  # v0.0.38 knows none
    assert records["6"].state == "TIMEOUT" and records["6"].reason == "TimeLimit" and records["6"].ended


def test_nodes() -> None:
    old = {
        **{"name": "n1", "cpus": 288, "alloc_cpus": 72, "real_memory": 870000, "alloc_memory": 1000, "state": "mixed"},
        **{
            "state_flags": ["DRAIN"],
            "gres": "gpu:gh200:4",
            "gres_used": "gpu:gh200:1(IDX:0)",
            "partitions": ["a", "b"],
        },
    }
    new = {**old, "name": "n2", "state": ["IDLE", "NOT_RESPONDING"], "state_flags": None}
    well = {**old, "name": "n3", "state": ["MIXED"], "state_flags": []}
    first, second, third = openapi.nodes({"nodes": [old, new, well]})
    assert (first.usable, first.state, second.state, third.state) == (False, "drained", "down", "")
    assert (
        third.usable and third.gpus_free == {"gh200": 3} and third.cpus_free == 216 and third.partitions == {"a", "b"}
    )


def test_partitions_and_reservations() -> None:
    old = {"name": "p", "state": "UP", "flags": ["default"], "allowed_accounts": "a,b", "denied_qos": "low"}
    new = {
        **{
            "name": "p",
            "partition": {"state": ["UP"]},
            "accounts": {"allowed": "a,b", "deny": ""},
            "groups": {"allowed": ""},
        },
        "qos": {"allowed": "", "deny": "low"},
    }
    assert openapi.partitions({"partitions": [old]}) == openapi.partitions({"partitions": [new]})
    assert not openapi.partitions({"partitions": [{**new, "partition": {"state": ["DOWN"]}}]})[0].up
    when = {"start_time": {"set": True, "number": 100}, "end_time": 200}
    course = {"name": "course", "node_list": "nid[000001-000002]", "users": "ada,bob", **when}
    (reservation,) = openapi.reservations(
        {"reservations": [course, {**course, "name": "later", "start_time": 150}]}, 120
    )
    assert reservation.nodes == ("nid000001", "nid000002") and reservation.users == ("ada", "bob")


@pytest.mark.parametrize(
    "answer", [{}, {"jobs": None}, {"jobs": [{}]}, {"jobs": ["x"]}, [], None, {"jobs": [{"job_id": 1}]}]
)
def test_an_answer_without_jobs_is_no_answer(answer: Any) -> None:
    with pytest.raises(openapi.UnreadableAnswer):
        openapi.jobs(answer)


def test_errors_tell_who_spoke() -> None:
    refused, silent = openapi.errors(
        {
            "errors": [
                {"error_code": 2000, "error": "Invalid partition name specified"},
                {"error_number": -1, "error": "x"},
            ]
        }
    )
    assert refused.of_slurm and not silent.of_slurm


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["set", "number", "state", "jobs"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_readers_say_that_they_cannot_read(value: Any) -> None:
    for reader in (
        openapi.jobs,
        openapi.records,
        openapi.nodes,
        openapi.partitions,
        openapi.associations,
        openapi.choose,
    ):
        try:
            reader(value)
        except (openapi.UnreadableAnswer, KeyError, TypeError, AttributeError):
            pass  # what the client takes for silence


def test_directives_end_where_the_commands_begin() -> None:
    found = directives(
        "#!/bin/sh\n#SBATCH -p debug -N2\n# a comment\n#SBATCH --comment='two words' # said\n\necho\n#SBATCH -A x\n"
    )
    assert found == [Directive("partition", "debug"), Directive("nodes", "2"), Directive("comment", "two words")]


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("00:07:00", 7), ("7:30", 8), ("01:00:00", 60), ("1-0", 1440), ("1-00:30", 1470), ("2-00:00:01", 2881)],
)
def test_minutes(text: str, value: int) -> None:
    assert minutes(text) == value


def test_megabytes() -> None:
    assert [megabytes(text) for text in ("100", "100M", "2G", "1T", "2048K", "0")] == [100, 100, 2048, 1048576, 2, 0]


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_a_sealed_script_tells_nothing(environment: dict[str, str]) -> None:
    script, variables = seal("#!/bin/bash\n#SBATCH --time=5\ntrue\n", {**environment, "TOKEN": "very-secret"})
    assert "very-secret" not in script + str(variables)
    assert script.startswith("#!/bin/bash\n#SBATCH --time=5\n#") and script.endswith("\ntrue\n")


def test_a_sealed_environment_opens_in_the_job() -> None:
    odd = {"QUOTES": 'it\'s "x" $HOME `id`', "LINES": "a\nb\n", "UNICODE": "Zürich 🏔", "PAIRS": "a=b,c"}
    script, variables = seal("#!/bin/bash\nenv -0\n", odd)
    done = subprocess.run(
        ["bash"], input=script.encode(), env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, check=True
    )
    seen = dict(pair.split("=", 1) for pair in done.stdout.decode().split("\0") if pair)
    assert {name: seen[name] for name in odd} == odd and not set(variables) & set(seen)
