"""A session as a Slurm job: batchspawner's SlurmSpawner (its traits, its template variables) on our own life cycle.

- A unique mark is persisted before sbatch runs and the job id as soon as it is known, so a hub that dies in between
  finds its job again.
- Cancelling a start never interrupts sbatch: stop() waits for the id, cancels, and returns once the end is proved.
- All looking at the queue is the cluster's watcher's.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from batchspawner import SlurmSpawner
from traitlets import Float, Unicode, default

from ...diagnose import StartFailed
from ...diagnose import slurm as diagnose
from ...diagnose.log import hub_unreachable, without_secrets
from ...duration import spoken_duration
from ...events import EventLog
from ...session import Job, State
from ...within import happened
from .client import SlurmClient, SlurmError, SlurmUnavailable, SlurmUnreachable, Submission, SubmitRefused
from .script import TEMPLATE, render
from .watcher import News, SlurmWatcher

NODE_PROGRAM = files("hybridspawner").joinpath("node.py").read_text(encoding="utf-8")
_RUN_NODE_PROGRAM = 'import os; exec(os.environ["HYBRIDSPAWNER_NODE"])'


class SlurmSessionSpawner(SlurmSpawner):
    """See the module. `client`, `watcher` and `callback_url` are set by the target when it builds the child."""

    batch_script = Unicode(TEMPLATE, help="Template of the job script (Jinja), with every `req_*` trait.").tag(
        config=True
    )
    req_srun = Unicode(
        "", help="Prefix of the server's command, e.g. `srun`; by default it runs in the batch step."
    ).tag(config=True)
    req_nodes = Unicode("", help="Number of nodes.").tag(config=True)
    req_job_name = Unicode(help="Name of the job in the queue.").tag(config=True)
    req_log = Unicode(help="Path of the job's log; %j is the job id.").tag(config=True)
    callback_timeout = Float(300, help="Seconds from the start of the job until its server has called the hub.").tag(
        config=True
    )
    stop_timeout = Float(300, help="Seconds to wait for the proof that a cancelled job has ended.").tag(config=True)

    client: SlurmClient
    watcher: SlurmWatcher
    callback_url: str
    node_domain = ""
    python = "python3"
    longest_wait: float = 3600
    progress_log: EventLog | None = None
    on_change: Callable[[], None] = staticmethod(lambda: None)
    job: Job | None = None
    mark = ""
    gate: AbstractAsyncContextManager[Any] = nullcontext()
    queue_seconds = 0.0
    _submitting: asyncio.Task[None] | None = None
    _called_back: asyncio.Event

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._called_back = asyncio.Event()

    @default("req_job_name")
    def _default_job_name(self) -> str:
        parts = ["jupyter", self.user.name, *([self.name] if self.name else [])]
        return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in "-".join(parts))[:60]

    @default("req_log")
    def _default_log(self) -> str:
        return str(PurePosixPath(self.req_homedir) / ".jupyterhub-session-%j.log")

    # --- state -------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        return {"job": self.job.to_json()} if self.job is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.job = Job.from_json(state.get("job"))

    def clear_state(self) -> None:
        super().clear_state()
        if self.job is not None and self.job.job_id:
            self.watcher.forget(self.job.job_id)
        self.job = None

    def _to(self, state: State, **changes: Any) -> None:
        assert self.job is not None
        new = self.job.to(state, **changes)
        if new != self.job:
            self.job = new
            self.job_id = new.job_id
            self.on_change()

    @property
    def waiting(self) -> bool:
        return self.job is not None and self.job.state in (State.SUBMITTING, State.QUEUED)

    # --- start -------------------------------------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        env = super().get_env()
        env["HYBRIDSPAWNER_CALLBACK"] = self.callback_url
        env["HYBRIDSPAWNER_NODE"] = NODE_PROGRAM
        return env

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """The account's variables; the account need not exist on the hub's machine."""
        return {**env, "USER": self.user.name, "HOME": self.req_homedir, "SHELL": "/bin/bash"}

    def cmd_formatted_for_batch(self) -> str:
        """The server's command for the template: node.py under the environment's Python, every word quoted."""
        return shlex.join([self.python, "-c", _RUN_NODE_PROGRAM, *self.get_args()])

    async def _get_batch_script(self, **variables: Any) -> str:
        if self.batch_script == TEMPLATE:
            return render(self.batch_script, variables)
        script: str = await super()._get_batch_script(**variables)  # a site's own template keeps batchspawner's rules
        return script

    async def start_session(self) -> str:
        self._called_back.clear()
        async with self.gate:
            self.job = Job(self.mark, marked_at=time.time())
            self.on_change()
            self._say("Submitting the job to Slurm", 5)
            self._submitting = asyncio.create_task(self._submit())
            await asyncio.shield(self._submitting)
        submitted = time.monotonic()
        await self._until_running()
        self.queue_seconds = time.monotonic() - submitted
        await self._until_called_back()
        return self._url()

    async def _submit(self) -> None:
        """Submit and record the id. Never cancelled half-way: start() shields it and stop() waits for it."""
        assert self.job is not None
        variables = {**self.get_req_subvars(), "cmd": self.cmd_formatted_for_batch()}
        try:
            script = await self._get_batch_script(**variables)
        except ValueError as error:
            self._to(State.GONE)
            raise StartFailed("The job script could not be made.", str(error), "Change that value.") from None
        submission = Submission(script, self.get_env(), self.user.name, self.job.mark, self.req_homedir)
        try:
            job_id = await self.client.submit(submission)
        except SubmitRefused as error:
            self._to(State.GONE)
            raise diagnose.refused_submission(str(error)) from None
        except SlurmUnreachable as error:
            self._to(State.GONE)
            raise diagnose.silent_controller(str(error)) from None
        except SlurmUnavailable as error:
            # it may have been accepted all the same: stop() looks for the mark before this is called gone
            raise diagnose.silent_controller(str(error)) from None
        self._to(State.QUEUED, job_id=job_id, log=self.req_log.replace("%j", job_id))
        self.watcher.follow(job_id)
        self._say(f"Slurm accepted the job as number {job_id}", 10)

    async def _until_running(self) -> None:
        assert self.job is not None
        deadline = time.monotonic() + self.longest_wait
        while True:
            news = self.watcher.news(self.job.job_id)
            if news is not None:
                self._apply(news)
                if self.job.state is State.GONE:
                    raise await self._diagnosis(news)
                if self.job.state in (State.STARTING, State.RUNNING):
                    self._say(f"The job runs on {self.job.host}; the server is starting", 60)
                    return
                if self.job.state is State.QUEUED:
                    seen = news.reading
                    ahead = self.watcher.ahead(self.job.job_id)
                    self._say(*diagnose.queue_words(seen.reason, seen.start, ahead, seen.partition))
            if self._silent():
                self._say("Slurm does not answer at the moment; the job keeps its place", 12, self.watcher.last_error)
            if time.monotonic() > deadline:
                last = (news.reading.reason, news.reading.start) if news else ("", "")
                raise diagnose.queue_timeout(self.longest_wait, *last)
            await self.watcher.next_round(10)

    async def _until_called_back(self) -> None:
        deadline = time.monotonic() + self.callback_timeout
        reading_log = asyncio.create_task(self._tell_what_the_log_says())
        try:
            while not self._called_back.is_set():
                failure = await self.ended()
                if failure is not None:
                    raise failure
                if time.monotonic() > deadline:
                    raise diagnose.no_callback(self.callback_url, self.callback_timeout, await self.log_tail())
                await happened(self._called_back, 1)  # `ended` looks at what the watcher has; it costs nothing
        finally:
            reading_log.cancel()

    async def _tell_what_the_log_says(self) -> None:
        """A node that cannot reach the hub cannot say so: its log does. Ends when it is cancelled."""
        pause = 4
        while True:
            await asyncio.sleep(pause)
            found = hub_unreachable(await self.log_tail())
            if found is not None:
                self._say(found[0], 60, found[1])
            pause = 15

    def called_back(self, port: int) -> bool:
        """The node tells its port. False if no job waits for one.

        It may call before sbatch's answer is read, and again with the same port if our answer was lost.
        """
        if self.job is None or self.job.state is State.GONE or self.job.port not in (0, port):
            return False
        self._to(self.job.state, port=port)
        self._say("The session has called the hub; waiting for its server", 80)
        self.watcher.hurry(self.job.job_id)
        self._called_back.set()
        return True

    # --- watching ----------------------------------------------------------------------------------------------------

    def _apply(self, news: News) -> None:
        """Move the job to what the watcher saw."""
        assert self.job is not None
        reading = news.reading
        if self.job.state is State.GONE:
            return
        if news.ended:
            self._to(State.GONE, exit_code=reading.exit_code)
        elif reading.pending and self.job.state in (State.STARTING, State.RUNNING):  # requeued: it will call again
            self._called_back.clear()
            self._to(State.QUEUED, host="", port=0)
        elif reading.pending:
            self._to(State.QUEUED)
        else:
            self._to(State.RUNNING if self.job.port else State.STARTING, host=reading.host or self.job.host)

    def _silent(self) -> bool:
        """Whether the scheduler does not answer; then the job is UNKNOWN, which keeps everything."""
        silent = self.watcher.silent_since is not None
        if silent and self.job is not None and self.job.state in (State.QUEUED, State.STARTING, State.RUNNING):
            self._to(State.UNKNOWN)
        return silent

    async def ended(self) -> StartFailed | None:
        if self.job is None or not self.job.job_id:
            return None
        self.watcher.follow(self.job.job_id)
        news = self.watcher.news(self.job.job_id)
        if news is None:
            return None
        self._apply(news)
        return await self._diagnosis(news) if self.job.state is State.GONE else None

    async def poll(self) -> int | None:
        """None unless the end is proved: silence, errors and a job not yet submitted all count as running."""
        if self.job is None:
            return 0
        if self.job.state is not State.GONE:
            if not self.job.job_id:
                if self._submitting is not None:
                    return None
                if not await self._recover():
                    return None if self.job.state is not State.GONE else 1
            self.watcher.follow(self.job.job_id)
            if self.watcher.news(self.job.job_id) is None:  # after a restart of the hub: the first answer is on its way
                await self.watcher.next_round(10)
            news = self.watcher.news(self.job.job_id)
            if news is not None:
                self._apply(news)
            self._silent()
        if self.job.state is State.GONE:
            return self.job.exit_code if self.job.exit_code is not None else 1
        return None

    async def _recover(self) -> bool:
        """Look for a job whose id was never learnt, by its mark. True if found.

        GONE only when the time is over in which a submit of a hub that died could still reach the controller.
        """
        assert self.job is not None
        too_late = time.time() > self.job.marked_at + self.client.submit_patience
        try:
            found = (await self.client.marked(self.job.mark)).get(self.job.mark)
        except SlurmError as error:
            self.log.warning("Cannot look for job %s: %s", self.job.mark, error)
            return False
        if found is None:
            if too_late:
                self._to(State.GONE)
            return False
        self._to(State.QUEUED, job_id=found.job_id, log=self.req_log.replace("%j", found.job_id))
        return True

    async def _diagnosis(self, news: News) -> StartFailed:
        assert self.job is not None
        seen, log = news.reading, await self.log_tail()
        if seen.exit_code is None:  # the queue does not tell it, and only a failure needs it
            try:
                seen = (await self.client.finished([seen.job_id])).get(seen.job_id, seen)
            except SlurmError as error:
                self.log.warning("Cannot read the record of job %s: %s", seen.job_id, error)
        where = {"host": self.job.host, "runtime": self.req_runtime, "log_path": self.job.log}
        return diagnose.ended_job(seen.state, seen.reason, seen.exit_code, log, **where)

    async def log_tail(self) -> str:
        """The last lines of the job's log, without the session's token."""
        assert self.job is not None
        tail = await self.client.tail(self.job.log, self.user.name, 30) if self.job.log else ""
        return without_secrets(tail, [self.api_token])

    # --- stop --------------------------------------------------------------------------------------------------------

    async def stop_session(self, now: bool) -> bool:
        if self._submitting is not None:
            await asyncio.gather(self._submitting, return_exceptions=True)
            self._submitting = None
        if self.job is None or self.job.state is State.GONE:
            return True
        deadline, cancelled_at = time.monotonic() + self.stop_timeout, -60.0
        while not self.job.job_id and not await self._recover():
            if self.job.state is State.GONE or time.monotonic() > deadline:
                return self.job.state is State.GONE
            await asyncio.sleep(1)
        self.watcher.follow(self.job.job_id)
        while time.monotonic() < deadline:
            if (
                time.monotonic() - cancelled_at > 15
            ):  # again now and then: the first one may have met a silent controller
                cancelled_at = time.monotonic()
                try:
                    await self.client.cancel(self.job.job_id, self.user.name)
                except SlurmError as error:
                    self.log.warning("Cannot cancel job %s yet: %s", self.job.job_id, error)
                self.watcher.hurry(self.job.job_id)
            await self.watcher.next_round(15)
            news = self.watcher.news(self.job.job_id)
            if news is not None:
                self._apply(news)
            if self.job.state is State.GONE:
                return True
        self.log.error(
            "Job %s was cancelled %s ago and has not ended", self.job.job_id, spoken_duration(self.stop_timeout)
        )
        return False

    # --- addresses ---------------------------------------------------------------------------------------------------

    def _url(self) -> str:
        assert self.job is not None
        return f"http://{self.job.host}{self.node_domain}:{self.job.port}"

    async def current_url(self) -> str | None:
        if self.job is None:
            return None
        while not self.job.job_id and not await self._recover():
            if self.job.state is State.GONE:
                return None
            self._say("Looking for the job that was being submitted when the hub was restarted", 5)
            await asyncio.sleep(1)
        await self._until_running()
        if not self.job.port:
            await self._until_called_back()
        return self._url()

    def _say(self, message: str, percent: int | None = None, detail: str = "") -> None:
        if self.progress_log is not None:
            self.progress_log.append(message, percent, detail)
