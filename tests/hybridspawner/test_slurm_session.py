"""One Slurm session and the cluster's watcher, against a Slurm that fails on purpose (tests/hub has the real one)."""

import asyncio
from collections.abc import Collection
from types import SimpleNamespace

import pytest

from hybridspawner.diagnose import StartFailed
from hybridspawner.session import Job, State
from hybridspawner.targets.slurm.client import JobReading, SlurmUnavailable, Submission, SubmitRefused
from hybridspawner.targets.slurm.spawner import SlurmSessionSpawner
from hybridspawner.targets.slurm.watcher import SlurmWatcher


class Cluster:
    """A SlurmClient whose jobs are a dict; `silent` makes it unreachable, `lose_answer` accepts without answering."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.records: dict[str, JobReading] = {}
        self.marks: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.queries = 0
        self.submit_patience = 0.1
        self.silent = self.lose_answer = self.refuse = self.stubborn = False
        self.submitting = asyncio.Event()
        self.let_submit = asyncio.Event()
        self.let_submit.set()

    def _answer(self) -> None:
        if self.silent:
            raise SlurmUnavailable("Unable to contact slurm controller")

    async def submit(self, job: Submission) -> str:
        self.submitting.set()
        await self.let_submit.wait()
        if self.refuse:
            raise SubmitRefused("invalid partition specified")
        number = str(len(self.marks) + 1)
        self.marks[job.mark], self.states[number] = number, "PENDING"
        if self.lose_answer:
            raise SlurmUnavailable("Socket timed out")
        return number

    async def cancel(self, job_id: str, user: str) -> None:
        self._answer()
        self.cancelled.append(job_id)
        if not self.stubborn:
            self.states[job_id] = "CANCELLED"

    async def queue(self) -> dict[str, JobReading]:
        self.queries += 1
        self._answer()
        return {i: JobReading(i, state, "nid1") for i, state in self.states.items()}

    async def marked(self, prefix: str, besides: Collection[str] = ()) -> dict[str, JobReading]:
        self._answer()
        return {m: JobReading(i, self.states[i], "nid1") for m, i in self.marks.items() if m.startswith(prefix)}

    async def finished(self, ids: Collection[str]) -> dict[str, JobReading]:
        self._answer()
        records = {**self.records, **{i: JobReading(i, state) for i, state in self.states.items()}}
        return {i: records[i] for i in ids if i in records}

    async def rights(self) -> dict:
        return {}

    async def estimate(self, job: Submission) -> None:
        return None

    async def nodes(self) -> tuple:
        return ()

    async def tail(self, path: str, user: str, lines: int) -> str:
        return ""


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


def session(cluster: Cluster) -> SlurmSessionSpawner:
    child = SlurmSessionSpawner(user=SimpleNamespace(name="ada"))
    child.client, child.watcher = cluster, SlurmWatcher(cluster, quick=0.01, slow=0.01, longest=0.02)
    child.mark = "hub-1"
    child.req_homedir, child.req_keepvars, child.callback_url = "/home/ada", "", "http://hub/port"
    child.get_env = dict  # what JupyterHub would give it is not the matter here
    child.get_args = list
    child.stop_timeout = 0.3
    child.saved = []
    child.on_change = lambda: child.saved.append(child.get_state())
    return child


async def until(condition) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 10)


async def cancelled(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_mark_is_saved_before_the_submit_and_the_id_right_after(cluster: Cluster) -> None:
    child = session(cluster)
    cluster.let_submit.clear()
    start = asyncio.create_task(child.start_session())
    await cluster.submitting.wait()
    assert child.saved[-1]["job"]["mark"] and not child.saved[-1]["job"]["job_id"]
    cluster.let_submit.set()
    await until(lambda: child.saved[-1]["job"]["job_id"] == "1")
    await cancelled(start)


async def test_a_start_runs_to_a_url(cluster: Cluster) -> None:
    child = session(cluster)
    start = asyncio.create_task(child.start_session())
    await until(lambda: child.job and child.job.job_id)
    cluster.states["1"] = "RUNNING"
    await until(lambda: child.job.state is State.STARTING)
    assert child.called_back(4000) and not child.called_back(5000)
    assert child.called_back(4000)  # again, because our answer was lost
    assert await start == "http://nid1:4000"
    assert await child.poll() is None


async def test_a_call_that_is_quicker_than_sbatch_s_answer_and_than_squeue_is_kept(cluster: Cluster) -> None:
    child = session(cluster)
    cluster.let_submit.clear()
    start = asyncio.create_task(child.start_session())
    await cluster.submitting.wait()
    assert child.called_back(4000)
    cluster.let_submit.set()
    await until(lambda: child.job.state is State.QUEUED)  # an answer of squeue from before the job began
    cluster.states["1"] = "RUNNING"
    assert await start == "http://nid1:4000"


@pytest.mark.parametrize("moment", ["submitting", "queued", "running"])
async def test_cancelled_at_any_moment_the_job_is_cancelled_and_proved_gone(cluster: Cluster, moment: str) -> None:
    child = session(cluster)
    if moment == "submitting":
        cluster.let_submit.clear()
    start = asyncio.create_task(child.start_session())
    await cluster.submitting.wait()
    if moment == "running":
        await until(lambda: child.job and child.job.job_id)
        cluster.states["1"] = "RUNNING"
    await cancelled(start)
    stop = asyncio.create_task(child.stop_session(now=False))
    await asyncio.sleep(0)
    cluster.let_submit.set()
    assert await stop
    assert cluster.states == {"1": "CANCELLED"} and child.job.state is State.GONE


async def test_a_submit_whose_answer_was_lost_is_found_by_its_mark(cluster: Cluster) -> None:
    child = session(cluster)
    cluster.lose_answer = True
    with pytest.raises(StartFailed, match="could not be submitted"):
        await child.start_session()
    assert await child.stop_session(now=False)
    assert cluster.cancelled == ["1"]


async def test_a_refused_submit_leaves_nothing_to_stop(cluster: Cluster) -> None:
    child = session(cluster)
    cluster.refuse = True
    with pytest.raises(StartFailed, match="partition does not exist"):
        await child.start_session()
    assert await child.stop_session(now=False) and cluster.cancelled == []


async def test_silence_is_not_an_end(cluster: Cluster) -> None:
    child = session(cluster)
    start = asyncio.create_task(child.start_session())
    await until(lambda: child.job and child.job.job_id)
    cluster.silent = True
    await until(lambda: child.job.state is State.UNKNOWN)
    assert await child.poll() is None
    cluster.silent = False
    await until(lambda: child.job.state is State.QUEUED)
    await cancelled(start)


async def test_a_stop_without_proof_says_so(cluster: Cluster) -> None:
    child = session(cluster)
    start = asyncio.create_task(child.start_session())
    await until(lambda: child.job and child.job.job_id)
    await cancelled(start)
    cluster.stubborn = True
    assert not await child.stop_session(now=False)
    assert child.get_state()["job"]["job_id"] == "1"


async def test_a_job_that_ends_by_itself_ends_the_start(cluster: Cluster) -> None:
    child = session(cluster)
    start = asyncio.create_task(child.start_session())
    await until(lambda: child.job and child.job.job_id)
    cluster.states["1"] = "NODE_FAIL"
    with pytest.raises(StartFailed, match="node failed"):
        await start
    assert await child.poll() == 1


async def test_after_a_restart_the_job_is_adopted_from_its_state(cluster: Cluster) -> None:
    cluster.states["7"] = "RUNNING"
    child = session(cluster)
    child.load_state({"job": Job("m", State.RUNNING, "7", "nid1", 4000).to_json()})
    assert await child.poll() is None and await child.current_url() == "http://nid1:4000"


async def test_after_a_restart_in_mid_submit_the_job_is_found_or_known_not_to_be(cluster: Cluster) -> None:
    cluster.states["7"], cluster.marks["m"] = "PENDING", "7"
    child = session(cluster)
    child.load_state({"job": Job("m").to_json()})
    assert await child.poll() is None and child.job.job_id == "7"
    other = session(cluster)
    other.load_state({"job": Job("never-submitted").to_json()})
    assert await other.poll() == 1


async def test_one_query_serves_all_jobs(cluster: Cluster) -> None:
    watcher = SlurmWatcher(cluster, quick=0.01)
    for number in map(str, range(200)):
        cluster.states[number] = "PENDING"
        watcher.follow(number)
    await watcher.next_round(5)
    assert cluster.queries == 1 and all(watcher.news(str(n)) for n in range(200))
    for number in range(200):
        watcher.forget(str(number))


async def test_out_of_the_queue_is_gone_only_if_accounting_agrees(cluster: Cluster) -> None:
    watcher = SlurmWatcher(cluster, quick=0.01, slow=0.01)
    cluster.records["1"] = JobReading("1", "RUNNING")
    watcher.follow("1")
    watcher.follow("2")
    await watcher.next_round(5)
    assert not watcher.news("1").ended and watcher.news("2").ended
    cluster.records["1"] = JobReading("1", "TIMEOUT", exit_code=0)
    await until(lambda: watcher.news("1").ended)
    watcher.forget("1")
    watcher.forget("2")
