"""What a scheduler is given for a submission: the script of a Slurm array, the manifests of Kubernetes Jobs. Pure.

What a user chose reaches them as in `runs.launch.slurm_script`: one word of a strict pattern, quoted, or a comment.
Parameters are in neither.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ipytune.batch.directory import Batch, State, Submission, width
from ipytune.runs.launch.manifest import manifest
from ipytune.runs.launch.settings import NOTICE_SECONDS, KubernetesSettings, SlurmSettings, seconds
from ipytune.runs.launch.slurm_script import templates

WORKER = "ipytune.batch.work"


def indices(sets: Sequence[int]) -> str:
    """For --array.

    >>> indices([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    spans: list[list[int]] = []
    for number in sorted(sets):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def comment(mark: str) -> str:
    """By which an array is found again whose number nobody wrote down."""
    return f"ipytune-{mark}"


def sbatch(batch: Batch, submission: Submission, path: str) -> list[str]:
    """The command that submits the script. sbatch replaces %a and the like in file names: the number of the set there,
    with leading zeros as its folder has them."""
    if "\\" in path:
        raise ValueError(f"{path} has a backslash in it, which sbatch does not take in a file name. Choose another.")
    array = indices(submission.sets) + (f"%{batch.at_once}" if batch.at_once else "")
    log = f"{path.replace('%', '%%')}/%{width(len(batch.sets))}a/log"
    options = [f"--array={array}", f"--comment={comment(submission.mark)}", "--export=ALL", f"--output={log}"]
    return ["sbatch", "--parsable", *options, f"{path}/jobs/{submission.mark}/array.sbatch"]


def array_script(settings: SlurmSettings, batch: Batch, submission: Submission, path: str, python: str) -> str:
    template = (files(__package__) / "templates" / "array.sbatch.j2").read_text(encoding="utf-8")
    return templates.from_string(template).render(
        job=settings,
        notice=NOTICE_SECONDS,
        submit=shlex.join(sbatch(batch, submission, path)),
        python=python,
        batch=path,
        mark=submission.mark,
        width=width(len(batch.sets)),
        out_of_time=State.OUT_OF_TIME.value,
        cancelled=State.CANCELLED.value,
    )


def manifests(settings: KubernetesSettings, batch: Batch, submission: Submission, path: str) -> list[dict[str, Any]]:
    """As many Jobs as sets may run at once; each takes one set after the other until none is left.

    The walltime is that of one set, and the worker keeps it; the pod's own limit is what one worker alone would need.
    """
    made = []
    for number, launched in enumerate(submission.kubernetes):
        arguments = [path, f"--submission={submission.mark}", f"--worker={number}"]
        arguments.append(f"--seconds={seconds(settings.walltime) - NOTICE_SECONDS}")
        body = manifest(settings, launched.job, arguments, module=WORKER)
        pod = body["spec"]["template"]["spec"]
        pod["activeDeadlineSeconds"] = seconds(settings.walltime) * len(submission.sets)
        made.append(body)
    return made
