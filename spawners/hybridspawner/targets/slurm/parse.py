"""Slurm's own output as data: pure functions, one per command. Formats as in the squeue, sinfo and sacct manuals."""

from __future__ import annotations

import re
from collections import Counter

from ...capacity import NodeCapacity
from .client import JobReading

SQUEUE_FORMAT = "%i|%T|%B|%S|%r"
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
        fields = line.strip().split("|", 4)
        if len(fields) == 5:
            number, state, host, start, reason = fields
            host = "" if host in ("n/a", "N/A", "(null)") else host
            readings[number] = JobReading(number, state, host, start, "" if reason == "None" else reason)
    return readings


def scontrol_job(output: str) -> JobReading | None:
    """The reading in `scontrol --oneliner show job ID`."""
    fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", output))
    if not fields.get("JobId"):
        return None
    return JobReading(
        fields["JobId"],
        fields.get("JobState", ""),
        fields.get("BatchHost", ""),
        reason="" if fields.get("Reason") in (None, "None") else fields["Reason"],
        exit_code=_exit_code(fields.get("ExitCode", "")),
    )


def sacct(output: str) -> JobReading | None:
    """The reading in `sacct --parsable2 --noheader --format JobIDRaw,State,ExitCode,Reason` (first line: the job)."""
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) == 4:
            number, state, code, reason = fields
            # accounting writes e.g. "CANCELLED by 1000"
            return JobReading(
                number,
                state.split()[0] if state else "",
                "",
                "N/A",
                "" if reason == "None" else reason,
                _exit_code(code),
            )
    return None


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
