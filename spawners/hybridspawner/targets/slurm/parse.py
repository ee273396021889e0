"""Slurm's own output as data: pure functions, one per command. Formats as in the squeue, sinfo and sacct manuals."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime

from ...capacity import NodeCapacity
from . import hostlist
from .access import Association, PartitionRules, Reservation, node_state
from .client import JobReading

SQUEUE_FORMAT = "%i|%T|%B|%S|%Q|%P|%u|%r"
"""Nothing in it is chosen by a job's owner: a name or comment may hold line breaks and pretend to be another job."""
SINFO_FIELDS = "NodeList:128,StateLong:32,CPUsState:64,Memory:32,AllocMem:32,PartitionName:128,Gres:512,GresUsed:512"
_WIDTHS = [int(field.split(":")[1]) for field in SINFO_FIELDS.split(",")]
_GRES = re.compile(r"(?<![\w.-])(?P<name>\w+)(?::(?P<type>[A-Za-z][\w.-]*))?:(?P<count>\d+)(?=[(,]|$)", re.ASCII)
_TEST_ONLY = re.compile(r"Job \S+ to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", re.ASCII)


def job_id(output: str) -> str:
    """The id that `sbatch --parsable` printed (`id` or `id;cluster`, last line); ValueError if there is none."""
    last = output.strip().splitlines()[-1] if output.strip() else ""
    found = last.split(";")[0].strip()
    if not found.isdigit():
        raise ValueError(f"sbatch printed no job id: {output.strip()[:200]!r}")
    return found


def squeue(output: str) -> dict[str, JobReading]:
    """Readings by job id, from `squeue --noheader --format SQUEUE_FORMAT`."""
    readings = {}
    for line in output.splitlines():
        fields = line.strip().split("|", 7)
        if len(fields) == 8 and fields[4].isdigit():
            number, state, host, start, priority, partition, user, reason = fields
            host = "" if host in ("n/a", "N/A", "(null)") else host
            reason = "" if reason == "None" else reason
            readings[number] = JobReading(number, state, host, start, reason, None, partition, int(priority), user)
    return readings


def marks(output: str, prefix: str) -> dict[str, str]:
    """Job ids by mark, from `squeue --noheader --format %i|%k`, of jobs whose comment starts with `prefix`."""
    pairs = (line.strip().partition("|") for line in output.splitlines())
    return {comment: number for number, _, comment in pairs if comment.startswith(prefix) and number.isdigit()}


def scontrol_job(output: str) -> tuple[str, JobReading] | None:
    """The comment and the reading in `scontrol --oneliner show job ID`."""
    fields = dict(reversed(re.findall(r"(?:^|\s)(\w+)=(\S*)", output)))  # the first counts: a comment may hold more
    if not fields.get("JobId"):
        return None
    reading = JobReading(
        fields["JobId"],
        fields.get("JobState", ""),
        fields.get("BatchHost", ""),
        reason="" if fields.get("Reason") in (None, "None") else fields["Reason"],
        exit_code=_exit_code(fields.get("ExitCode", "")),
        user=fields.get("UserId", "").split("(")[0],
    )
    return fields.get("Comment", ""), reading


def sacct(output: str) -> dict[str, JobReading]:
    """Readings by job id, from `sacct --allocations --parsable2 --noheader --format JobIDRaw,State,ExitCode,Reason`."""
    readings = {}
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) == 4:
            number, state, code, reason = fields
            word = state.split()[0] if state else ""  # accounting writes e.g. "CANCELLED by 1000"
            reason = "" if reason == "None" else reason
            readings[number] = JobReading(number, word, reason=reason, exit_code=_exit_code(code))
    return readings


def _exit_code(text: str) -> int | None:
    """Slurm's `code:signal` as a shell's status: the code, or 128 + signal."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        return None
    code, signal = int(match[1]), int(match[2])
    return 128 + signal if signal else code


def sinfo(output: str, gres: str = "gpu") -> tuple[NodeCapacity, ...]:
    """Nodes from `sinfo --Node --noheader --Format SINFO_FIELDS`: one line a node and partition, fixed widths, MB."""
    nodes: dict[str, NodeCapacity] = {}
    for line in output.splitlines():
        if not line.strip():
            continue
        name, state, cpus, memory, memory_used, partition, have, used = _columns(line)
        partitions = {partition.rstrip("*")} | (set(nodes[name].partitions) if name in nodes else set())
        allocated, idle, _, total = (int(n) for n in cpus.split("/"))
        gpus, gpus_used = gres_counts(have, gres), gres_counts(used, gres)
        nodes[name] = NodeCapacity(
            name,
            total,
            idle,
            int(memory) * 1.048576 / 1000,
            (int(memory) - int(memory_used)) * 1.048576 / 1000,
            dict(gpus),
            {kind: count - gpus_used[kind] for kind, count in gpus.items()},
            not node_state(state),
            frozenset(partitions),
            node_state(state),
        )
    return tuple(nodes.values())


def gres_counts(text: str, name: str = "gpu") -> Counter[str]:
    """GPUs by type in a gres list: `gpu:4`, `gpu:gh200:4(S:0-3)`, `gpu:gh200:1(IDX:0),nic:1`, `(null)`."""
    counts: Counter[str] = Counter()
    for match in _GRES.finditer(text):
        if match["name"] == name:
            counts[match["type"] or ""] += int(match["count"])
    return counts


def test_only(output: str) -> datetime | None:
    """When `sbatch --test-only` says that the job would start (the cluster's local time); None if it does not tell."""
    match = _TEST_ONLY.search(output)
    try:
        return datetime.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def associations(output: str) -> list[Association]:
    """From `sacctmgr --noheader --parsable2 show assoc format=User,Account,Partition,QOS`; accounts' own lines go."""
    lines = (line.split("|") for line in output.splitlines())
    return [
        Association(user, account, partition, tuple(filter(None, qos.split(","))))
        for user, account, partition, qos in (fields for fields in lines if len(fields) == 4)
        if user
    ]


def partitions(output: str) -> list[PartitionRules]:
    """From `scontrol --all --oneliner show partition`."""
    rules = []
    for fields in _records(output):
        if fields.get("PartitionName"):
            everyone = fields.get("RootOnly", "NO") != "YES"
            rules.append(
                PartitionRules(
                    fields["PartitionName"],
                    fields.get("State", "UP") == "UP" and everyone,
                    _set(fields.get("AllowGroups", "ALL")),
                    _set(fields.get("AllowAccounts", "ALL")),
                    _set(fields.get("AllowQos", "ALL")),
                    _set(fields.get("DenyAccounts", "")) or frozenset(),
                    _set(fields.get("DenyQos", "")) or frozenset(),
                )
            )
    return rules


def reservations(output: str) -> list[Reservation]:
    """Those that are active now, from `scontrol --all --oneliner show reservation`."""
    found = []
    for fields in _records(output):
        if fields.get("ReservationName") and fields.get("State") == "ACTIVE":
            try:
                nodes = hostlist.expand(fields.get("Nodes", ""))
            except ValueError:
                nodes = []
            found.append(
                Reservation(
                    fields["ReservationName"],
                    tuple(nodes),
                    _words(fields.get("Users", "")),
                    _words(fields.get("Accounts", "")),
                    _words(fields.get("Groups", "")),
                    "MAINT" in fields.get("Flags", "").split(","),
                )
            )
    return found


def members(passwd: str, group: str) -> dict[str, set[str]]:
    """Users by group, from `getent group NAMES` and, for those whose first group it is, `getent passwd USERS`."""
    found: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for fields in (line.split(":") for line in group.splitlines()):
        if len(fields) == 4:
            found.setdefault(fields[0], set()).update(filter(None, fields[3].split(",")))
            names[fields[2]] = fields[0]
    for fields in (line.split(":") for line in passwd.splitlines()):
        if len(fields) == 7 and fields[3] in names:
            found[names[fields[3]]].add(fields[0])
    return found


def _records(output: str) -> list[dict[str, str]]:
    """`Key=value` pairs of each line of scontrol --oneliner; the first of a key counts."""
    return [dict(reversed(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))) for line in output.splitlines()]


def _words(text: str) -> tuple[str, ...]:
    return () if text == "(null)" else tuple(filter(None, text.split(",")))


def _set(text: str) -> frozenset[str] | None:
    """A list of those who are allowed; None for ALL."""
    return None if text == "ALL" else frozenset(_words(text))


def _columns(line: str) -> list[str]:
    values, at = [], 0
    for width in _WIDTHS:
        values.append(line[at : at + width].strip())
        at += width
    return values
