"""A thousand questions at sixty-four at once: bounded memory, an interrupt in the middle, then only the rest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ipytune.evaluate import Evaluation, Job, evaluate
from ipytune.evaluate.plan import plan
from ipytune.evaluate.progress import Progress
from ipytune.mock import Behaviour, start_mock
from tests.browser.lab import until

ROWS = 1000
CONCURRENCY = 64
LENGTH = 100_000  # characters of an answer

SCRIPT = """
import sys
from ipytune.endpoints import Endpoint
from ipytune.evaluate import evaluate
endpoint = Endpoint(name="mock", base_url=sys.argv[1], model="mock")
evaluate(sys.argv[2], endpoint, "exact", directory=sys.argv[3], concurrency=64,
         on_progress=lambda p: print(p.done, p.total, flush=True))
"""


def write(path: Path, count: int = ROWS) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"q {i}", "expected": f"q {i}"}) + "\n" for i in range(count)))
    return path


def test_an_interrupt_keeps_what_was_paid_and_resuming_asks_only_the_rest(tmp_path: Path) -> None:
    data, directory = write(tmp_path / "data.jsonl"), tmp_path / "out"
    with start_mock(Behaviour(echo=True, ttft=0.1)) as mock:
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, mock.url, str(data), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Python ignores SIGINT where it was ignored before, as in tests that run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                done, total = map(int, line.split())
                assert total == ROWS
                if done > 150:
                    break
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
            child.wait()
        assert "KeyboardInterrupt" in said and child.returncode != 0
        stopped = Evaluation.open(directory)
        paid = stopped.columns[0].asked
        assert stopped.state == "stopped" and 150 < paid < ROWS
        asked = mock.stats().requests
        assert paid == asked  # nothing that was asked was lost
        found = evaluate(data, mock.endpoint(), "exact", directory=directory, concurrency=CONCURRENCY)
        assert (found.summary("mock").n, found.summary("mock").mean) == (ROWS, 1.0)
        assert mock.stats().requests == ROWS
        assert mock.stats().peak_in_flight <= CONCURRENCY


def test_so_many_requests_are_under_way_at_once_and_no_more(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl")
    with start_mock(Behaviour(hang_after=1)) as mock:
        job = Job(plan(data, mock.endpoint(), "exact", directory=tmp_path / "out", concurrency=CONCURRENCY))
        try:
            until(lambda: mock.stats().in_flight >= CONCURRENCY, "as many requests", 60)
        finally:
            job.stop(0)
            assert job.wait(60)
        assert mock.stats().peak_in_flight == CONCURRENCY


def test_memory_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    """A thousand answers of 100,000 characters: what is held after two hundred is all that is ever held."""
    data = write(tmp_path / "data.jsonl")
    held: dict[int, int] = {}

    def look(progress: Progress) -> None:
        held[progress.done] = resident()

    with start_mock(Behaviour(text="x" * LENGTH)) as mock:
        found = evaluate(
            data, mock.endpoint(), "contains:x", directory=tmp_path, concurrency=CONCURRENCY, on_progress=look
        )
    assert found.summary("mock").mean == 1.0
    written = (tmp_path / "answers.jsonl").stat().st_size
    assert written > ROWS * LENGTH
    early = min(done for done in held if done >= 200)
    grown = max(held.values()) - held[early]
    assert grown < written * (ROWS - early) / ROWS / 2, f"{grown:,} bytes more after {early} answers"


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_progress_tells_the_rate_and_what_is_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with start_mock(Behaviour(echo=True, ttft=0.3)) as mock:
        evaluate(
            write(tmp_path / "d.jsonl", 40), mock.endpoint(), directory=tmp_path, concurrency=8, on_progress=seen.append
        )
    told = [moment.remaining_seconds for moment in seen if 0 < moment.done < 40]
    assert told and all(left is not None and left > 0 for left in told)
    assert [moment.done for moment in seen] == sorted(moment.done for moment in seen)
    assert seen[-1].phase == "completed"


def test_a_killed_run_is_gone_on_with(tmp_path: Path) -> None:
    data, directory = write(tmp_path / "data.jsonl", 300), tmp_path / "out"
    with start_mock(Behaviour(echo=True, ttft=0.1)) as mock:
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, mock.url, str(data), str(directory)], stdout=subprocess.DEVNULL
        )
        answers = directory / "answers.jsonl"
        try:
            until(lambda: answers.exists() and answers.read_bytes().count(b"\n") > 100, "a hundred answers", 60)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        until(lambda: mock.stats().in_flight == 0, "the server's notice", 20)
        paid = len(re.findall(rb'^\{"key".*\}\n', answers.read_bytes(), re.MULTILINE))
        mock.reset()
        found = evaluate(data, mock.endpoint(), "exact", directory=directory, concurrency=CONCURRENCY)
        assert found.summary("mock").n == 300 and mock.stats().requests == 300 - paid
