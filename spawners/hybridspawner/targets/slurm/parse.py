"""Slurm's own output as data: pure functions, one per command. Formats as in the squeue, sinfo and sacct manuals."""

from __future__ import annotations

import re
from collections import Counter

from ...capacity import NodeCapacity
from .client import JobReading

SQUEUE_FORMAT = "%i|%T|%B|%S|%Q|%P|%u|%r"
"""Nothing in it is chosen by a job's owner: a name or comment may hold line breaks and pretend to be another job."""
SINFO_FIELDS = "NodeList:128,StateLong:32,CPUsState:64,Memory:32,AllocMem:32,PartitionName:128,Gres:512,GresUsed:512"
_WIDTHS = [int(field.split(":")[1]) for field in SINFO_FIELDS.split(",")]
_GRES = re.compile(r"(?<![\w.-])(?P<name>\w+)(?::(?P<type>[A-Za-z][\w.-]*))?:(?P<count>\d+)(?=[(,]|$)", re.ASCII)
_OUT_OF_SERVICE = ("down", "drain", "fail", "maint", "reserved", "unknown", "power", "reboot", "future", "perfctrs")


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
            not any(word in state.lower() for word in _OUT_OF_SERVICE) and not state.endswith("*"),
            frozenset(partitions),
        )
    return tuple(nodes.values())


def gres_counts(text: str, name: str = "gpu") -> Counter[str]:
    """GPUs by type in a gres list: `gpu:4`, `gpu:gh200:4(S:0-3)`, `gpu:gh200:1(IDX:0),nic:1`, `(null)`."""
    counts: Counter[str] = Counter()
    for match in _GRES.finditer(text):
        if match["name"] == name:
            counts[match["type"] or ""] += int(match["count"])
    return counts


def _columns(line: str) -> list[str]:
    values, at = [], 0
    for width in _WIDTHS:
        values.append(line[at : at + width].strip())
        at += width
    return values
