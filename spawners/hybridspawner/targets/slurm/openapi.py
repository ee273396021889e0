"""Slurm's REST API as data: which version a server speaks, the jobs we send, and readers of what it answers.

Versions differ in shape. v0.0.38 has plain numbers and words; later ones have numbers that may be unset or infinite
(`{"set": true, "infinite": false, "number": 5}`), lists of states, and an environment that is a list. What we send
follows the server's own OpenAPI document; the readers take every shape. Pure functions; an answer that is no answer
raises ValueError (UnreadableAnswer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...capacity import NodeCapacity
from . import hostlist
from .access import Association, PartitionRules, Reservation, node_state
from .client import ENDED, JobReading
from .directives import Directive, DirectiveError, directives, megabytes, minutes
from .parse import gres_counts

KNOWN = tuple(f"v0.0.{n}" for n in range(43, 37, -1))
"""Versions of the API that this module was written for, newest first (Slurm 22.05 to 25.05)."""

_FIELDS = {
    "job-name": "name",
    "output": "standard_output",
    "error": "standard_error",
    "partition": "partition",
    "account": "account",
    "reservation": "reservation",
    "qos": "qos",
    "constraint": "constraints",
    "cpus-per-task": "cpus_per_task",
    "nodes": "nodes",
    "ntasks": "tasks",
    "ntasks-per-node": "tasks_per_node",
    "licenses": "licenses",
    "nice": "nice",
}
_FLAG_STATES = (  # states that Slurm sets beside another one, and that squeue then prints instead of it
    *("COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    *("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "REVOKED"),
)


class UnreadableAnswer(ValueError):
    """The server's answer is not of a shape that is known here."""


@dataclass(frozen=True)
class Api:
    """What a server offers: the version chosen, whether it has accounting, and the schema of a job."""

    version: str
    accounting: bool
    job: Mapping[str, Mapping[str, Any]]

    @property
    def script_in_job(self) -> bool:
        return "script" in self.job


def choose(document: Any) -> Api:
    """The newest version known here that `document` (the server's OpenAPI) offers."""
    try:
        paths = document["paths"]
        version = next(v for v in KNOWN if f"/slurm/{v}/job/submit" in paths or f"/slurm/{v}/job/submit/" in paths)
        submit = paths.get(f"/slurm/{version}/job/submit") or paths[f"/slurm/{version}/job/submit/"]
        body = _schema(document, submit["post"]["requestBody"]["content"]["application/json"]["schema"])
        job = _schema(document, body["properties"]["job"])["properties"]
        resolved = {name: _schema(document, field) for name, field in job.items()}
    except StopIteration:
        offered = sorted(set(re.findall(r"/slurm/(v[\d.]+)/", " ".join(map(str, document["paths"])))))
        raise UnreadableAnswer(f"the server has {', '.join(offered) or 'no'} API, not one of {KNOWN}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableAnswer(f"the server's OpenAPI document cannot be read: {error!r}") from None
    accounting = any(path.startswith(f"/slurmdb/{version}/") for path in paths)
    return Api(version, accounting, resolved)


def _schema(document: Any, schema: Any) -> Any:
    """`schema` with its reference followed."""
    for _ in range(10):
        if "$ref" not in schema:
            return schema
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    raise KeyError("a reference that refers to itself")


# --- what we send -----------------------------------------------------------------------------------------------------


def submission(api: Api, script: str, environment: Mapping[str, str], mark: str, directory: str) -> dict[str, Any]:
    """The body of POST job/submit. DirectiveError for an #SBATCH option that the API has no field for."""
    job: dict[str, Any] = {}
    for option in directives(script):
        if option.name not in ("export", "comment", "chdir"):  # these are ours to say
            name, value = _field(api, option)
            job[name] = fit(value, api.job[name])
    job["comment"], job["current_working_directory"] = mark, directory
    pairs = [f"{name}={value}" for name, value in environment.items()]
    job["environment"] = pairs if api.job["environment"].get("type") == "array" else dict(environment)
    if api.script_in_job:
        return {"job": {**job, "script": script}}
    return {"job": job, "script": script}


def _field(api: Api, option: Directive) -> tuple[str, Any]:
    """The field of the API, and the value, that say the same as an option of sbatch."""
    name, value = option.name, option.value
    gres = "gres:" if api.version == "v0.0.39" else "gres/"  # Slurm 23.11 has changed it
    choices: list[tuple[str, Any]] = []
    if name in _FIELDS:
        choices = [(_FIELDS[name], value)]
    elif name == "time":
        choices = [("time_limit", minutes(value))]
    elif name == "mem":
        choices = [("memory_per_node", megabytes(value))]
    elif name == "gres":
        choices = [("gres", value), ("tres_per_node", ",".join(gres + word for word in value.split(",")))]
    elif name in ("gpus-per-node", "gpus"):
        where = "tres_per_node" if name == "gpus-per-node" else "tres_per_job"
        choices = [(name.replace("-", "_"), value), (where, f"{gres}gpu:{value}")]
    elif name == "exclusive" and value in ("", "user", "mcs"):
        choices = [("exclusive", value or "true"), ("shared", value or "none")]
    elif name in ("requeue", "no-requeue"):
        choices = [("requeue", name == "requeue")]
    for field, content in choices:
        if field in api.job:
            return field, content
    raise DirectiveError(f"#SBATCH --{name} cannot be said in Slurm's REST API {api.version}: use another transport")


def fit(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` in the shape that the schema of its field wants."""
    kind = schema.get("type")
    try:
        if kind == "integer":
            return int(value)
        if kind == "object" and "number" in schema.get("properties", {}):
            return {"set": True, "infinite": False, "number": int(value)}
        if kind == "array":
            copies = 2 if schema.get("maxItems") == 2 else 1  # the least and the most: v0.0.38 has `nodes` so
            return [fit(value, schema.get("items", {}))] * copies
        if kind == "boolean":
            return value if isinstance(value, bool) else str(value).lower() == "true"
    except ValueError:
        raise DirectiveError(f"{value!r} is not a number") from None
    return str(value)


# --- what it answers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApiError:
    """One of the errors in an answer, in Slurm's words. Slurm numbers its own from 2000 on (slurm_errno.h)."""

    number: int
    text: str

    @property
    def of_slurm(self) -> bool:
        """Whether the controller itself said so: lower numbers are the transport's."""
        return 2000 <= self.number < 9000


def errors(answer: Any) -> list[ApiError]:
    if not isinstance(answer, dict):
        raise UnreadableAnswer("the answer is no JSON object")
    found = []
    for error in _list(answer, "errors"):
        words = [str(error[key]) for key in ("error", "description") if error.get(key)]
        value = number(error.get("error_number", error.get("error_code")))
        found.append(ApiError(value if value is not None else -1, ": ".join(dict.fromkeys(words)) or "unknown error"))
    return found


def number(value: Any) -> int | None:
    """An integer in any shape; None for one that is unset or infinite."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value)
    if isinstance(value, dict) and value.get("set", True) and not value.get("infinite"):
        return number(value.get("number"))
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value, re.ASCII):
        return int(value)
    return None


def words(value: Any) -> tuple[str, ...]:
    """A list of words, or one that is written with commas."""
    if isinstance(value, str):
        return tuple(filter(None, value.split(",")))
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def jobs(answer: Any) -> dict[str, tuple[str, JobReading]]:
    """(comment, reading) by job id, of GET /slurm/…/jobs and job/ID."""
    found = {}
    for job in _list(answer, "jobs"):
        job_id = _job_id(job)
        state = job_state(job.get("job_state"))
        reason = str(job.get("state_reason") or "")
        found[job_id] = (
            str(job.get("comment") or ""),
            JobReading(
                job_id,
                state,
                str(job.get("batch_host") or ""),
                time_text(number(job.get("start_time"))),
                "" if reason == "None" else reason,
                exit_code(job.get("exit_code")) if state in ENDED else None,
                str(job.get("partition") or ""),
                number(job.get("priority")) or 0,
                str(job.get("user_name") or ""),
            ),
        )
    return found


def records(answer: Any) -> dict[str, JobReading]:
    """Readings by job id, of accounting's GET /slurmdb/…/job/ID.

    v0.0.38 says `return_code: 0` for every job that no signal ended: of a job that failed, that is no exit code.
    """
    found = {}
    for job in _list(answer, "jobs"):
        state = job.get("state")
        if not isinstance(state, dict):
            raise UnreadableAnswer("a job of accounting has no state")
        reason = str(state.get("reason") or "")
        word, code = job_state(state.get("current")), exit_code(job.get("exit_code"))
        found[_job_id(job)] = JobReading(
            _job_id(job),
            word,
            reason="" if reason == "None" else reason,
            exit_code=None if word == "FAILED" and code == 0 else code,
            partition=str(job.get("partition") or ""),
            user=str(job.get("user") or ""),
        )
    return found


def job_state(value: Any) -> str:
    """The state as squeue prints it: of several, the one that is set beside the others."""
    states = [str(word).upper() for word in words(value)]
    if not states:
        raise UnreadableAnswer(f"{str(value)[:80]!r} is no state of a job")
    return next((state for state in _FLAG_STATES if state in states), states[0])


def exit_code(value: Any) -> int | None:
    """A shell's status: from wait's (plain numbers of v0.0.38), or from return_code and signal."""
    if isinstance(value, dict) and "return_code" in value:
        signal = value.get("signal") or {}
        killed = number(signal.get("id", signal.get("signal_id"))) if isinstance(signal, dict) else None
        return 128 + killed if killed else number(value["return_code"])
    status = number(value)
    if status is None:
        return None
    return 128 + (status & 127) if status & 127 else (status >> 8) & 255


def nodes(answer: Any, gres: str = "gpu") -> tuple[NodeCapacity, ...]:
    found = []
    for node in _list(answer, "nodes"):
        state = node_state(" ".join((*words(node.get("state")), *words(node.get("state_flags")))))
        cpus = number(node.get("cpus")) or 0
        memory, used = number(node.get("real_memory")) or 0, number(node.get("alloc_memory")) or 0
        gpus, taken = (
            gres_counts(str(node.get("gres") or ""), gres),
            gres_counts(str(node.get("gres_used") or ""), gres),
        )
        found.append(
            NodeCapacity(
                str(node["name"]),
                cpus,
                cpus - (number(node.get("alloc_cpus")) or 0),
                memory * 1.048576 / 1000,
                (memory - used) * 1.048576 / 1000,
                dict(gpus),
                {kind: count - taken[kind] for kind, count in gpus.items()},
                not state,
                frozenset(words(node.get("partitions"))),
                state,
            )
        )
    return tuple(found)


def associations(answer: Any) -> list[Association]:
    return [
        Association(str(a["user"]), str(a.get("account") or ""), str(a.get("partition") or ""), words(a.get("qos")))
        for a in _list(answer, "associations")
        if a.get("user")
    ]


def partitions(answer: Any) -> list[PartitionRules]:
    found = []
    for p in _list(answer, "partitions"):
        groups, accounts, qos = _object(p, "groups"), _object(p, "accounts"), _object(p, "qos")
        state = [word.upper() for word in words(_object(p, "partition").get("state") or p.get("state"))]
        found.append(
            PartitionRules(
                str(p["name"]),
                "UP" in state and "root_only" not in [word.lower() for word in words(p.get("flags"))],
                _allowed(p.get("allowed_groups") or groups.get("allowed")),
                _allowed(p.get("allowed_accounts") or accounts.get("allowed")),
                _allowed(p.get("allowed_qos") or qos.get("allowed")),
                frozenset(words(p.get("denied_accounts") or accounts.get("deny"))),
                frozenset(words(p.get("denied_qos") or qos.get("deny"))),
            )
        )
    return found


def reservations(answer: Any, now: float) -> list[Reservation]:
    """Those that are active at `now`, in seconds since 1970."""
    found = []
    for r in _list(answer, "reservations"):
        begin, end = number(r.get("start_time")) or 0, number(r.get("end_time")) or 0
        if begin <= now < end:
            try:
                held = hostlist.expand(str(r.get("node_list") or ""))
            except ValueError:
                held = []
            users, accounts, groups = (words(r.get(key)) for key in ("users", "accounts", "groups"))
            flags = [word.upper() for word in words(r.get("flags"))]
            found.append(Reservation(str(r["name"]), tuple(held), users, accounts, groups, "MAINT" in flags))
    return found


def _list(answer: Any, key: str) -> list[dict[str, Any]]:
    """The objects under `key`; an answer without them says nothing, so it is none."""
    value = answer.get(key) if isinstance(answer, dict) else None
    if value is None and key == "errors":
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UnreadableAnswer(f"the answer has no list of {key}")
    named = {"nodes": "name", "partitions": "name", "reservations": "name"}.get(key)
    if named and not all(item.get(named) for item in value):
        raise UnreadableAnswer(f"the answer has {key} without a name")
    return value


def _object(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What newer versions nest under `key`, where older ones have a word or nothing."""
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _allowed(value: Any) -> frozenset[str] | None:
    names = words(value)
    return None if not names or "ALL" in names else frozenset(names)


def _job_id(job: Mapping[str, Any]) -> str:
    value = number(job.get("job_id"))
    if value is None:
        raise UnreadableAnswer("a job has no id")
    return str(value)


def time_text(seconds: int | None) -> str:
    """As squeue prints it, in the hub's local time."""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%dT%H:%M:%S") if seconds else "N/A"
    except (OverflowError, ValueError, OSError):
        return "N/A"
