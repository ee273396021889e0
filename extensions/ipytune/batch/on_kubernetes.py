"""A batch as Kubernetes Jobs: as many as sets may run at once, each of which takes one set after the other.

Indexed Jobs with a parallelism would say the same in fewer words, and are missing or off before Kubernetes 1.22; a file
that can be made only once, in the batch's directory on the shared volume, divides the sets on any version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePosixPath

from ipytune.batch import scripts
from ipytune.batch.directory import Batch, BatchDirectory, SetStatus, State, Submission
from ipytune.batch.jobs import Ask
from ipytune.batch.states import Evidence
from ipytune.runs.directory import replace_text
from ipytune.runs.launch.base import InKubernetes, LaunchError
from ipytune.runs.launch.kubernetes_answers import SILENT, JobState, read
from ipytune.runs.launch.kubernetes_api import JobApi, Unreachable, connect
from ipytune.runs.launch.manifest import job_name
from ipytune.runs.launch.settings import KubernetesSettings


class KubernetesJobs:
    def __init__(
        self,
        directory: BatchDirectory,
        batch: Batch,
        settings: KubernetesSettings,
        api: Callable[[], JobApi] = connect,
    ) -> None:
        self._directory = directory
        self._batch = batch
        self._settings = settings
        self._api = api

    def plan(self, submission: Submission) -> Submission:
        count = min(self._batch.at_once or len(submission.sets), len(submission.sets))
        jobs = tuple(
            InKubernetes(
                job=job_name(self._directory.path.name[:30], f"{submission.mark}-{number}"),
                namespace=self._settings.namespace,
            )
            for number in range(count)
        )
        return submission.model_copy(update={"kubernetes": jobs})

    def preview(self, submission: Submission) -> str:
        bodies = scripts.manifests(self._settings, self._batch, submission, str(self._directory.path))
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}, indent=1) + "\n"

    def check(self) -> None:
        mount = self._settings.mount
        for what, path in (("the batch", str(self._directory.path)), ("--cwd", self._batch.cwd)):
            if not PurePosixPath(path).is_relative_to(mount):
                raise LaunchError(
                    f"{what} ({path}) is not below {mount}, the only directory that the Jobs share with this session. "
                    f"Put it there (--dir, --cwd), or name the volume's path with --job mount=."
                )

    def start(self, submission: Submission) -> Submission:
        folder = self._directory.jobs(submission.mark)
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "jobs.json", self.preview(submission))
        api = self._api()
        for body in scripts.manifests(self._settings, self._batch, submission, str(self._directory.path)):
            try:
                api.create(body)
            except LaunchError:
                self.end(submission)
                raise
        return submission

    def ask(self, submission: Submission) -> Ask:
        states = {job.job: self._state(job) for job in submission.kubernetes}

        def evidence(number: int, said: SetStatus | None) -> Evidence:
            mine = states.get(said.job.job) if said is not None and isinstance(said.job, InKubernetes) else None
            if mine is None:  # nobody has claimed it: any of them may
                living = [state for state in states.values() if state.alive]
                mine = next((state for state in living if state.waiting), None) if len(living) == len(states) else None
                mine = mine or (living or list(states.values()))[-1]
                if mine.alive and not mine.waiting and mine != SILENT:
                    mine = JobState(True, "waiting: for another set to end", waiting=True)
            return _evidence(mine)

        return evidence

    def end(self, submission: Submission) -> None:
        try:
            api = self._api()
            for job in submission.kubernetes:
                api.delete(job.job, job.namespace)
        except Unreachable as error:
            raise LaunchError(f"The Kubernetes Jobs could not be deleted: {error}. Try again later.") from error

    def describe(self, submission: Submission) -> str:
        jobs = submission.kubernetes
        if len(jobs) == 1:
            return f"Kubernetes Job {jobs[0].namespace}/{jobs[0].job}"
        return f"{len(jobs)} Kubernetes Jobs in {self._settings.namespace}, {jobs[0].job} and following"

    def _state(self, job: InKubernetes) -> JobState:
        try:
            api = self._api()
            pods = api.pods(job.job, job.namespace)
            found = api.job(job.job, job.namespace)
            if found is None and pods:  # deleted, and still ending
                return JobState(True, "ending")
            return read(found, pods)
        except (LaunchError, Unreachable):
            return SILENT


def _evidence(state: JobState) -> Evidence:
    if state.alive:
        return Evidence(True, state.words if state.waiting or state == SILENT else "")
    ended = State.OUT_OF_TIME if "walltime" in state.words else State.FAILED
    return Evidence(False, state.words.replace("lower row_tokens, or ", ""), ended)
