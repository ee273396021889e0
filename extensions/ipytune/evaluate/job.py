"""One evaluation going on in the background: started, looked at, stopped, waited for. It knows no widget.

What it promises:
- Memory does not grow with the answers: workers take questions from a file, answers and details go into files.
- An endpoint that fails wholly ends its own column; the others go on.
- Stopping lets answers that are being written come to their end for some seconds, then closes their connections.
- All files of the directory are readable at any time; what was paid for is in answers.jsonl (`ledger`).

    directory/questions.jsonl    what is asked
    directory/answers.jsonl      what was answered, also by judges: only ever grows, and makes resuming free
    directory/scores.jsonl       scores with their reasons: derived, written anew by every run
    directory/evaluation.json    what was evaluated, how it went

Every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any, BinaryIO

from ipytune.endpoints import background
from ipytune.endpoints.client import Client, Timeouts
from ipytune.endpoints.records import Endpoint
from ipytune.evaluate.asking import Asker, EndpointDead
from ipytune.evaluate.ledger import InUse, Ledger, Record, content_key, shared_cache
from ipytune.evaluate.plan import QUESTIONS, Plan
from ipytune.evaluate.progress import Counter, Progress
from ipytune.evaluate.questions import Question
from ipytune.evaluate.result import ANSWERS, SCORES, SUMMARY, Evaluation
from ipytune.evaluate.scorers import AnyScorer, Case, Judge, PairwiseJudge, Score, ScoringFailed
from ipytune.evaluate.scorers.judge import Ask
from ipytune.evaluate.sheet import Found, Sheet

GRACE = 5.0  # seconds that answers being written get when the evaluation is stopped
JUDGE_OPTIONS = {"temperature": 0.0, "max_tokens": 1024}
# httpcore looks at all connections of a pool, for each of them, at every request: the work grows with the square.
# Against the mock, 64 at once cost 20 ms of processor time a request from one pool, and 6 ms from four.
_POOL = 16  # connections for which one client is taken
_POOLS = 8
_SYNC = 1.0  # seconds of answers that a power cut may take


class Job:
    """Starts at once. Raises InUse when another process evaluates into the same directory."""

    def __init__(self, plan: Plan, timeouts: Timeouts | None = None) -> None:
        self.plan = plan
        self._timeouts = timeouts
        try:
            self._ledger = Ledger(plan.directory / ANSWERS)
        except InUse:
            plan.questions.path.unlink()
            raise
        self._cache = shared_cache(plan.cache) if plan.cache is not None else None
        plan.questions.put_at(plan.directory / QUESTIONS)
        self._sheet = Sheet(
            [endpoint.name for endpoint in plan.endpoints],
            [scorer.name for scorer in plan.scorers],
            len(plan.questions),
            plan.repeats,
        )
        self._counters = [Counter(endpoint.name, plan.answers) for endpoint in plan.endpoints]
        self._judged = self._judge_tokens = 0
        self._phase = "asking"
        self._began = time.monotonic()
        self._end: tuple[str, float] | None = None  # the last phase and when, set at once
        self._grace = GRACE
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._scores: BinaryIO = (plan.directory / SCORES).open("wb")
        self._future = background.spawn(self._run())

    def stop(self, grace: float = GRACE) -> None:
        """Ask nothing more; answers being written get `grace` seconds. Returns at once; harmless when it has ended."""
        self._grace = grace
        self._stopping.set()
        if self._loop is None:
            return  # it sees this as soon as it begins
        self._loop.call_soon_threadsafe(self._wake.set)
        if grace <= 0:
            self._future.cancel()

    @property
    def done(self) -> bool:
        return self._end is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, within `timeout` seconds. Raises what ended it, if nobody foresaw that."""
        done, _ = concurrent.futures.wait([self._future], timeout)
        if not done:
            return False
        while self._end is None:  # cancelled: the future is done before what it stands for has cleaned up
            time.sleep(0.01)
        if not self._future.cancelled() and (error := self._future.exception()) is not None:
            raise error
        return True

    def progress(self) -> Progress:
        going = "stopping" if self._stopping.is_set() else self._phase
        phase, moment = self._end or (going, time.monotonic())
        return self._progress(phase, moment)

    def _progress(self, phase: str, moment: float) -> Progress:
        columns = tuple(counter.view() for counter in self._counters)
        return Progress(phase, columns, moment - self._began, self._judged, self._judge_tokens)

    def evaluation(self) -> Evaluation:
        """The result, or what there is of it so far."""
        return Evaluation(self.plan.directory, self._summary(self.progress()), self._sheet, self.plan.questions)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopping.is_set():
            self._wake.set()
        phase = "failed"
        pool = ThreadPoolExecutor(4, "ipytune-score")
        syncing = asyncio.ensure_future(self._sync())
        try:
            self._write_summary(self.progress())
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(Client(self._timeouts))
                    for _ in range(min(-(-self.plan.concurrency // _POOL), _POOLS))
                ]
                asker = Asker(clients, self._ledger, self._cache, self.plan.concurrency)
                await self._stage([self._column(number, asker, pool) for number in range(len(self._counters))])
                if any(isinstance(scorer, PairwiseJudge) for scorer in self.plan.scorers) and not self._wake.is_set():
                    self._phase = "judging"
                    await self._stage([self._pairs(number, asker) for number in range(1, len(self._counters))])
            phase = "completed"
            if all(counter.problem is not None for counter in self._counters):
                phase = "failed"
            elif self._wake.is_set():
                phase = "stopped"
        except asyncio.CancelledError:
            phase = "stopped"
            raise
        finally:
            syncing.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            self._scores.close()
            self._ledger.close()
            if self._cache is not None:
                self._cache.close()
            end = (phase, time.monotonic())
            try:
                self._write_summary(self._progress(*end))
            finally:
                self._end = end

    async def _stage(self, work: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Goes through with all of it, or as far as it comes within the grace after a stop."""
        everything = asyncio.ensure_future(_together(work))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({everything, woken}, return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                await asyncio.wait({everything}, timeout=self._grace)
        finally:
            woken.cancel()
            everything.cancel()
            await asyncio.wait({everything, woken})
        if not everything.cancelled():
            everything.result()

    async def _column(self, number: int, asker: Asker, pool: ThreadPoolExecutor) -> None:
        items = self._items()
        workers = min(self.plan.concurrency, self.plan.answers)
        try:
            await _together([self._worker(number, items, asker, pool) for _ in range(workers)])
        except EndpointDead as dead:
            self._counters[number].problem = dead.problem

    def _items(self) -> Iterator[tuple[int, Question, int]]:
        for number, question in enumerate(self.plan.questions):
            for repeat in range(self.plan.repeats):
                yield number, question, repeat

    async def _worker(
        self, number: int, items: Iterator[tuple[int, Question, int]], asker: Asker, pool: ThreadPoolExecutor
    ) -> None:
        endpoint = self.plan.endpoints[number]
        for place, question, repeat in items:
            if self._wake.is_set():
                return
            record, now = await asker.ask(endpoint, question.messages, self.plan.options, repeat=repeat)
            self._counters[number].count(record, now)
            scores: list[Found] = [None] * len(self.plan.scorers)
            if record.problem is None:
                case = _case(question, record)
                work = asyncio.get_running_loop().run_in_executor(pool, _plain_scores, self.plan.scorers, case)
                scores = await work
                for index, scorer in enumerate(self.plan.scorers):
                    if isinstance(scorer, Judge):
                        scores[index] = await self._judged_score(scorer, case, asker)
            at = self._write_scores(number, place, repeat, record, scores)
            self._counters[number].unscored += any(isinstance(score, str) for score in scores)
            self._sheet.put(number, place, repeat, scores, at, record.problem is None)
            await asyncio.sleep(0)  # answers from the ledger come without waiting: others want the loop too

    async def _judged_score(self, scorer: Judge, case: Case, asker: Asker) -> Score | str:
        try:
            return await scorer.judge(case, self._asking_judges(asker))
        except ScoringFailed as error:
            return str(error)

    async def _pairs(self, number: int, asker: Asker) -> None:
        items = self._items()
        workers = min(self.plan.concurrency, self.plan.answers)
        await _together([self._pair_worker(number, items, asker) for _ in range(workers)])

    async def _pair_worker(self, number: int, items: Iterator[tuple[int, Question, int]], asker: Asker) -> None:
        ask = self._asking_judges(asker)
        for place, question, repeat in items:
            if self._wake.is_set():
                return
            given, baseline = (
                self._ledger.get(content_key(self.plan.endpoints[i], question.messages, self.plan.options, repeat))
                for i in (number, 0)
            )
            if given is None or baseline is None:
                continue
            for index, scorer in enumerate(self.plan.scorers):
                if not isinstance(scorer, PairwiseJudge):
                    continue
                score: Score | str
                try:
                    score = await scorer.compare(_case(question, given), baseline.text, ask)
                except ScoringFailed as error:
                    score = str(error)
                    self._counters[number].unscored += 1
                scores: list[Found] = [None] * len(self.plan.scorers)
                scores[index] = score
                at = self._write_scores(number, place, repeat, given, scores, pair=True)
                self._sheet.put_pair(number, place, repeat, index, score, at)
            await asyncio.sleep(0)

    def _asking_judges(self, asker: Asker) -> Ask:
        async def ask(endpoint: Endpoint, messages: Sequence[Mapping[str, str]]) -> str:
            try:
                record, now = await asker.ask(endpoint, messages, JUDGE_OPTIONS, purpose="judge")
            except EndpointDead as dead:
                raise ScoringFailed(f"The judge cannot be asked. {dead.problem}") from None
            if record.problem is not None:
                raise ScoringFailed(f"The judge gave no answer. {record.problem}")
            if now:
                self._judged += 1
                self._judge_tokens += record.output_tokens + (record.prompt_tokens or 0)
            return record.text

        return ask

    def _write_scores(
        self,
        number: int,
        question: int,
        repeat: int,
        record: Record,
        scores: Sequence[Found],
        pair: bool = False,
    ) -> int:
        """Appends a line and gives its place in the file."""
        names = [scorer.name for scorer in self.plan.scorers]
        line = {
            "question": question,
            "repeat": repeat,
            "endpoint": self.plan.endpoints[number].name,
            "answer": None if record.problem is not None else self._ledger.place(record.key),
            "pair": pair,
            "scores": {
                name: {"error": score} if isinstance(score, str) else asdict(score)
                for name, score in zip(names, scores, strict=True)
                if score is not None
            },
            "problem": None if record.problem is None else asdict(record.problem),
        }
        place = self._scores.tell()
        self._scores.write(json.dumps(line).encode() + b"\n")
        self._scores.flush()
        return place

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SYNC)
            await loop.run_in_executor(None, self._ledger.sync)

    def _summary(self, progress: Progress) -> dict[str, Any]:
        return {
            **self.plan.as_dict(),
            "state": progress.phase,
            "seconds": round(progress.seconds, 3),
            "judged": progress.judged,
            "judge_tokens": progress.judge_tokens,
            "columns": [asdict(column) for column in progress.columns],
        }

    def _write_summary(self, progress: Progress) -> None:
        path = self.plan.directory / SUMMARY
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self._summary(progress), indent=1), encoding="utf-8")
        beside.replace(path)


def _case(question: Question, record: Record) -> Case:
    return Case(record.text, question.expected, question.messages, question.scorer)


def _plain_scores(scorers: Sequence[AnyScorer], case: Case) -> list[Found]:
    """What scores without asking anybody; the reason as text where a scorer failed."""
    found: list[Found] = []
    for scorer in scorers:
        if isinstance(scorer, (Judge, PairwiseJudge)):
            found.append(None)
            continue
        try:
            found.append(scorer.score(case))
        except ScoringFailed as error:
            found.append(str(error))
    return found


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of it at once; the first exception ends the rest and is raised when they have ended."""
    tasks = [asyncio.ensure_future(item) for item in work]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
