"""A load measurement from beginning to end: check, steps one after another, report. Blocking (`load`) or not (`start`).

It works without a browser and in any thread: the measuring is done by processes of its own (worker.py), one thread here
tells them what to do. An interrupt stops it and keeps what was measured.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ipytune.endpoints import background
from ipytune.endpoints.client import Client
from ipytune.endpoints.errors import BadRequest, EndpointError
from ipytune.endpoints.records import Endpoint
from ipytune.load import saturation, vitals
from ipytune.load.arrivals import mean_rate, read_trace
from ipytune.load.machine import client_facts
from ipytune.load.metrics import Numbers, Window, summarise, window_of
from ipytune.load.numbers import percentile
from ipytune.load.plan import Load, Plan
from ipytune.load.prompts import Bodies
from ipytune.load.records import Record
from ipytune.load.report import LoadReport, MeasuredEndpoint, StepResult
from ipytune.load.vitals import Vitals
from ipytune.load.workers import WorkerLost, Workers, processes_for
from ipytune.processor import usable_cpus

_START_DELAY = 200_000_000  # nanoseconds from "start" to the common moment: all processes have read it by then
_READY_SECONDS = 120.0  # a first import on a cold file system takes its time
_PROBE_TOKENS = 4
_RATE_SECONDS = 2.0  # over which the live speed is taken


class LoadFailed(RuntimeError):
    """The measurement could not be made, or measured nothing."""


class LoadInterrupted(KeyboardInterrupt):
    """The interrupt, with the report of what had been measured; None when no step had begun."""

    def __init__(self, report: LoadReport | None) -> None:
        super().__init__("The load measurement was interrupted; what was measured is in `report`.")
        self.report = report


@dataclass(frozen=True)
class Progress:
    """How it goes. Counts are of the step under way; ttft and gap are medians of the last moments, in seconds.

    elapsed, eta: seconds; eta is None while nothing tells.   results: the steps that are over.
    """

    phase: Literal["checking", "connecting", "measuring", "over"] = "checking"
    step: int = 0
    steps: int = 0
    label: str = ""
    sent: int = 0
    running: int = 0
    done: int = 0
    errors: int = 0
    chunks_per_second: float | None = None
    ttft: float | None = None
    gap: float | None = None
    elapsed: float = 0.0
    eta: float | None = None
    results: tuple[StepResult, ...] = ()


class LoadRun:
    """One measurement. `start()`, `stop()`, `wait()`; `progress` and `report` at any time.

    directory: records.jsonl is written there as the steps end, and the report at the end. It must hold no report yet.
    on_progress: called in another thread, some times a second.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        plan: Plan,
        *,
        directory: Path | str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.plan = plan
        self.directory = Path(directory) if directory is not None else None
        if self.directory is not None and (self.directory / "report.json").exists():
            raise BadRequest(
                f"{self.directory} holds a report already.", "A new one would replace it.", "Name another directory."
            )
        self._on_progress = on_progress
        self._progress = Progress()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._report: LoadReport | None = None
        self._workers = Workers()
        self._results: list[StepResult] = []
        self._began = 0.0
        self._started_at = ""
        self._mark = secrets.token_hex(4)

    @property
    def progress(self) -> Progress:
        with self._lock:
            return self._progress

    @property
    def report(self) -> LoadReport | None:
        """Of what has been measured so far."""
        if self._report is not None or not self._results:
            return self._report
        return self._reported("stopped")

    @property
    def over(self) -> bool:
        return self._over.is_set()

    @property
    def error(self) -> Exception | None:
        return self._error

    def start(self) -> LoadRun:
        """Begin, in the background. Once."""
        if self._thread is not None:
            raise ValueError("This measurement was started already; make another LoadRun.")
        self._began = time.monotonic()
        self._started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._thread = threading.Thread(target=self._drive, name="ipytune-load", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the step under way and keep what it measured. Returns at once."""
        self._stopping.set()

    def wait(self, timeout: float | None = None) -> LoadReport:
        """The report, once all is over. Raises EndpointError, LoadFailed, or TimeoutError (the measurement goes on).

        An interrupt stops the measurement, waits for its end and is raised again, as LoadInterrupted with the report.
        """
        if self._thread is None:
            raise ValueError("Nothing was started: call start() first.")
        try:
            if not self._over.wait(timeout):
                raise TimeoutError(f"The load measurement is still going on after {timeout:g} s.")
        except KeyboardInterrupt:
            self.stop()
            self._over.wait()
            raise LoadInterrupted(self._report) from None
        if self._error is not None:
            raise self._error
        if self._report is None:
            raise LoadFailed("The measurement was stopped before its first step began.")
        return self._report

    def _drive(self) -> None:
        try:
            self._measure()
        except WorkerLost as error:
            self._error = LoadFailed(str(error))
        except Exception as error:  # told by wait(): a thread's exception would be seen by nobody
            self._error = error
        finally:
            self._workers.close()
            try:
                self._tell(phase="over", running=0, eta=0.0)
            except Exception as error:  # the caller's on_progress
                self._error = self._error or error
            finally:
                self._over.set()

    def _measure(self) -> None:
        trace = read_trace(self.plan.trace, self.plan.trace_scale) if self.plan.trace is not None else ()
        loads = self.plan.loads(mean_rate(trace))
        self._tell(steps=len(loads))
        self._check()
        ended: Literal["completed", "saturated", "stopped"] = "completed"
        before: tuple[Load, Numbers] | None = None
        for number, load in enumerate(loads):
            if self._stopping.is_set():
                ended = "stopped"
                break
            records, result = self._step(number, load, before)
            self._results.append(result)
            self._keep(number, records)
            self._tell(results=tuple(self._results))
            before = (load, result.numbers)
            if result.ended == "stopped":
                ended = "stopped"
                break
            if result.ended == "hopeless":
                break
            missed = saturation.misses(result.numbers, self.plan.good_share)
            if missed or (result.saturated and self.plan.until_saturated):
                ended = "saturated"
                break
        if not self._results:
            return
        self._report = self._reported(ended)
        if self.directory is not None:
            self._report.write(self.directory)

    def _check(self) -> None:
        """One short question through the ordinary client, whose errors say what to do. It also loads the model."""
        plan = self.plan
        options = plan.request_fields(min(plan.output_tokens, _PROBE_TOKENS))
        body = json.loads(Bodies(plan, self.endpoint.model, f"{self._mark}-check").body(0, 8 if plan.trace else None))

        async def asked() -> None:
            async with Client(plan.timeouts) as client:
                if plan.api == "completions":
                    await client.complete(self.endpoint, body["prompt"], **options)
                else:
                    await client.ask(self.endpoint, body["messages"], **options)

        asking = background.spawn(asked())
        while not wait([asking], timeout=0.1).done:
            if self._stopping.is_set():
                asking.cancel()
                return
        try:
            asking.result()
        except BadRequest as error:
            if not plan.pin_output:
                raise
            raise BadRequest(
                error.what,
                error.why,
                "If it is min_tokens or ignore_eos that the server does not know, do not pin the length of the answers "
                "(pin_output=False, --no-pin).",
            ) from None

    def _step(self, number: int, load: Load, before: tuple[Load, Numbers] | None) -> tuple[list[Record], StepResult]:
        per_user = None
        if before is not None and before[0].kind == "closed":
            per_user = before[1].output_tokens_per_second / before[0].value
        count = processes_for(self.plan, load, usable_cpus(), per_user)
        self._tell(
            phase="connecting", step=number + 1, label=load.label, sent=0, running=0, done=0, errors=0,
            chunks_per_second=None, ttft=None, gap=None,
        )  # fmt: skip
        self._workers.need(count)
        for share in range(count):
            job = {
                "endpoint": self.endpoint.model_dump(mode="json"),
                "plan": self.plan.model_dump(mode="json"),
                "load": {"kind": load.kind, "value": load.value},
                "mark": f"{self._mark}-{number}",
                "share": share,
                "of": count,
            }
            self._workers.tell(share, {"prepare": job})
        self._await_ready(count)
        start = time.monotonic_ns() + _START_DELAY
        for share in range(count):
            self._workers.tell(share, {"start": start})
        told = self._follow(load, count, start)
        records = [Record.unpacked(fields) for one in told for fields in one["records"]]
        window = window_of(records, [one["begin"] for one in told], [one["end"] for one in told])
        return records, self._result(load, records, window, told)

    def _await_ready(self, count: int) -> None:
        waiting = set(range(count))
        deadline = time.monotonic() + _READY_SECONDS + self.plan.timeouts.connect
        while waiting:
            try:
                number, message = self._next(max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise LoadFailed(
                    "The measuring processes did not get ready in time. Is the machine overloaded?"
                ) from None
            if message is not None and "ready" in message:
                waiting.discard(number)

    def _follow(self, load: Load, count: int, start: int) -> list[dict[str, Any]]:
        """Show how it goes until every process has told its records."""
        told: dict[int, dict[str, Any]] = {}
        live: dict[int, dict[str, Any]] = {}
        speed: deque[tuple[float, int]] = deque()
        asked_to_stop = False
        while len(told) < count:
            if self._stopping.is_set() and not asked_to_stop:
                asked_to_stop = True
                for share in set(range(count)) - told.keys():
                    self._workers.tell(share, {"stop": True})
            try:
                number, message = self._next(0.25)
            except queue.Empty:
                continue
            if message is not None and "records" in message:
                told[number] = message
            elif message is not None and "progress" in message:
                live[number] = message["progress"]
                if number == min(
                    live.keys() - told.keys(), default=number
                ):  # one picture for all of them, four times a second
                    self._picture(load, live, speed, start)
        return [told[number] for number in sorted(told)]

    def _next(self, seconds: float) -> tuple[int, dict[str, Any] | None]:
        """A worker's message. Raises queue.Empty, WorkerLost, EndpointError that the worker met."""
        number, message = self._workers.messages.get(timeout=seconds)
        if message is None:
            raise self._workers.lost()
        if "failed" in message:
            raise EndpointError(**message["failed"])
        return number, message

    def _picture(
        self, load: Load, live: dict[int, dict[str, Any]], speed: deque[tuple[float, int]], start: int
    ) -> None:
        now = time.monotonic()
        parts = list(live.values())
        chunks = sum(part["chunks"] for part in parts)
        speed.append((now, chunks))
        while len(speed) > 1 and now - speed[0][0] > _RATE_SECONDS:
            speed.popleft()
        over = now - speed[0][0]
        ttft = [value for part in parts for value in part["ttft"]]
        gaps = [value for part in parts for value in part["gaps"]]
        done = sum(part["done"] for part in parts)
        self._tell(
            phase="measuring",
            sent=sum(part["sent"] for part in parts),
            running=sum(part["running"] for part in parts),
            done=done,
            errors=sum(part["errors"] for part in parts),
            chunks_per_second=(chunks - speed[0][1]) / over if over > 0 else None,
            ttft=median(ttft) if ttft else None,
            gap=median(gaps) if gaps else None,
            eta=self._eta(load, done, now - start * 1e-9),
        )

    def _eta(self, load: Load, done: int, elapsed: float) -> float | None:
        """Seconds to the end of the last step, as far as the plan tells or this step's pace shows."""
        plan, left = self.plan, self.progress.steps - self.progress.step
        whole: float | None = None
        if plan.duration is not None:
            whole = plan.duration + plan.ramp
        if plan.requests is not None and done:
            paced = elapsed * (plan.requests + plan.warmup_of(load)) / done
            whole = paced if whole is None else min(whole, paced)
        return None if whole is None else max(whole - elapsed, 0.0) + left * whole

    def _result(self, load: Load, records: list[Record], window: Window, told: list[dict[str, Any]]) -> StepResult:
        numbers = summarise(records, window, self.plan.objectives)
        states = [Vitals.unpacked(one["vitals"]) for one in told]
        endings = {one["ended"] for one in told}
        ended = next((word for word in ("stopped", "hopeless", "in-flight limit") if word in endings), "sent")
        before = self._results[-1] if self._results else None
        saturated = (
            saturation.levels_off((before.load, before.numbers) if before else None, load, numbers)
            if load.kind == "closed"
            else saturation.falls_behind(records, window)
        )
        if ended == "in-flight limit":
            saturated = saturated or f"more than {self.plan.max_in_flight} requests were in flight"
        saturated = saturated or saturation.misses(numbers, self.plan.good_share)
        queued = [record.queue for record in records if record.measured and record.begun]
        return StepResult(
            kind=load.kind,
            value=load.value,
            label=load.label,
            processes=len(told),
            numbers=numbers,
            lag_p99=max((percentile(sorted(state.lags), 99) for state in states if state.lags), default=0.0),
            cpu_shares=tuple(round(state.cpu_share, 3) for state in states),
            client_limited=vitals.reasons(states, queued, ended == "in-flight limit"),
            saturated=saturated,
            ended=ended,
        )

    def _keep(self, number: int, records: list[Record]) -> None:
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "records.jsonl").open("a", encoding="utf-8") as lines:
            for record in sorted(records, key=lambda one: one.index):
                lines.write(json.dumps({"step": number, **record.as_json()}) + "\n")

    def _reported(self, ended: Literal["completed", "saturated", "stopped"]) -> LoadReport:
        endpoint = self.endpoint
        return LoadReport(
            endpoint=MeasuredEndpoint(name=endpoint.name, base_url=endpoint.base_url, model=endpoint.model),
            plan=self.plan,
            client=client_facts(endpoint),
            started_at=self._started_at,
            seconds=round(time.monotonic() - self._began, 1),
            ended=ended,
            steps=tuple(self._results),
        )

    def _tell(self, **news: Any) -> None:
        with self._lock:
            self._progress = replace(self._progress, elapsed=time.monotonic() - self._began, **news)
            progress = self._progress
        if self._on_progress is not None:
            self._on_progress(progress)


def start(
    endpoint: Endpoint,
    plan: Plan,
    *,
    directory: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadRun:
    """Begin a measurement in the background. See LoadRun."""
    return LoadRun(endpoint, plan, directory=directory, on_progress=on_progress).start()


def load(
    endpoint: Endpoint,
    plan: Plan,
    *,
    directory: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadReport:
    """Measure, and wait for the report. See LoadRun; raises what `LoadRun.wait` raises."""
    return start(endpoint, plan, directory=directory, on_progress=on_progress).wait()
