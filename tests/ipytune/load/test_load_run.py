"""Whole measurements, through processes of their own, against a mock server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ipytune.endpoints import Endpoint, KeyMissing, Unauthorized, Unreachable
from ipytune.endpoints.errors import BadRequest
from ipytune.load import LoadFailed, LoadReport, LoadRun, Plan, Progress, load, start
from ipytune.load.plan import Load
from ipytune.load.workers import processes_for
from ipytune.mock import Behaviour, MockServer, start_mock


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.02)


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(ttft=0.01, itl=0.001, tokens=8)) as running:
        yield running


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ipytune.load.worker" in " ".join(child.cmdline())]


def test_steps_one_after_another_and_all_that_is_written(mock: MockServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    plan = Plan(concurrency=(1, 3), requests=6, output_tokens=8, objectives={"ttft": 60})
    report = load(mock.endpoint(), plan, directory=tmp_path / "out", on_progress=seen.append)
    assert [step.label for step in report.steps] == ["1 at once", "3 at once"]
    assert [step.numbers.succeeded for step in report.steps] == [6, 6]
    assert report.ended == "completed" and report.client.same_machine
    assert report.steps[0].numbers.ttft.p50 is not None and report.steps[0].numbers.ttft.p50 >= 0.01
    assert all(step.numbers.good_share == 1 for step in report.steps)
    lines = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert len(lines) == 6 + 1 + 6 + 3 and {line["step"] for line in lines} == {0, 1}
    assert LoadReport.read(tmp_path / "out") == report
    assert seen[0].phase == "checking" and seen[-1].phase == "over" and len(seen[-1].results) == 2
    assert _children() == []


def test_two_processes_send_what_one_would_and_their_records_are_one_result(mock: MockServer) -> None:
    report = load(mock.endpoint(), Plan(rates=(60,), requests=30, output_tokens=8, processes=2, seed=5))
    (step,) = report.steps
    assert step.processes == 2 and len(step.cpu_shares) == 2
    assert step.numbers.succeeded == 30
    assert step.numbers.ttft.n == 30 and step.numbers.itl.n == 30 * 7


def test_a_trace_is_sent_as_it_is(mock: MockServer, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    rows = [{"timestamp": i / 50, "input_length": 5, "output_length": i + 1} for i in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = load(mock.endpoint(), Plan(trace=file))
    assert report.steps[0].numbers.succeeded == 4
    assert report.steps[0].numbers.output_tokens_mean == 2.5


def test_a_sweep_ends_where_more_users_bring_no_more() -> None:
    with start_mock(Behaviour(itl=0.005, tokens=8, slots=2)) as mock:
        report = load(mock.endpoint(), Plan.sweep("concurrency", last=64, duration=0.6, output_tokens=8))
    assert report.ended == "saturated"
    assert report.steps[-1].saturated is not None and report.steps[-1].value < 64


def test_a_sweep_ends_where_too_few_requests_are_good(mock: MockServer) -> None:
    plan = Plan(concurrency=(1, 2, 4), requests=4, output_tokens=8, objectives={"ttft": 0.001}, good_share=0.5)
    report = load(mock.endpoint(), plan)
    assert report.ended == "saturated" and len(report.steps) == 1


def test_stop_keeps_the_part_that_was_measured(mock: MockServer) -> None:
    run = start(mock.endpoint(), Plan(concurrency=(2, 4), duration=120, output_tokens=8))
    until(lambda: run.progress.done > 6, "some answers")
    run.stop()
    report = run.wait(60)
    assert report.ended == "stopped" and len(report.steps) == 1
    assert report.steps[0].ended == "stopped" and report.steps[0].numbers.succeeded > 0
    assert run.report == report


def test_waiting_too_short_leaves_the_measurement_going(mock: MockServer) -> None:
    run = start(mock.endpoint(), Plan(concurrency=(1,), duration=60, output_tokens=8))
    with pytest.raises(TimeoutError):
        run.wait(0.01)
    run.stop()
    until(lambda: run.over, "the end")


def test_a_worker_that_is_killed_is_told_and_leaves_none_behind(mock: MockServer) -> None:
    run = start(mock.endpoint(), Plan(concurrency=(2,), duration=120, output_tokens=8, processes=2))
    until(lambda: run.progress.done > 2, "some answers")
    _children()[0].kill()
    with pytest.raises(LoadFailed, match="ended by itself"):
        run.wait(60)
    assert _children() == []


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_endpoint_is_asked_once_before_and_its_refusal_is_told(api: str) -> None:
    with start_mock(Behaviour(key="right"), process=False) as mock:
        with pytest.raises(Unauthorized):
            load(Endpoint(name="e", base_url=mock.url, model="mock"), Plan(concurrency=(1,), requests=1, api=api))
        assert mock.stats().requests == 1


def test_a_server_that_does_not_know_how_to_pin_is_told_as_such() -> None:
    with start_mock(Behaviour(refuses=("ignore_eos",)), process=False) as mock:
        with pytest.raises(BadRequest, match="pin_output=False"):
            load(mock.endpoint(), Plan(concurrency=(1,), requests=1))
        assert load(mock.endpoint(), Plan(concurrency=(1,), requests=1, pin_output=False)).succeeded == 1


def test_no_server_and_no_key_are_told_at_once() -> None:
    with pytest.raises(Unreachable):
        load(Endpoint(name="e", base_url="http://127.0.0.1:9", model="m"), Plan(concurrency=(1,), requests=1))
    with pytest.raises(KeyMissing):
        load(
            Endpoint(name="e", base_url="http://127.0.0.1:9", model="m", key_env="NO_SUCH_VARIABLE"),
            Plan(concurrency=(1,), requests=1),
        )


def test_a_directory_with_a_report_is_not_written_over(mock: MockServer, tmp_path: Path) -> None:
    load(mock.endpoint(), Plan(concurrency=(1,), requests=1, output_tokens=2), directory=tmp_path)
    with pytest.raises(BadRequest, match="holds a report already"):
        LoadRun(mock.endpoint(), Plan(concurrency=(1,)), directory=tmp_path)


def test_the_key_is_in_no_file_no_word_and_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = "marker-key-c0ffee"
    monkeypatch.setenv("LOAD_KEY", marker)
    with start_mock(Behaviour(key=marker, error_rate=0.5, repeat_key=True, seed=1), process=False) as mock:
        endpoint = mock.endpoint(key_env="LOAD_KEY")
        arguments: list[str] = []

        def look(progress: Progress) -> None:
            arguments.extend(" ".join(child.cmdline()) for child in psutil.Process().children())
            arguments.append(repr(progress))

        plan = Plan(concurrency=(2,), requests=30, output_tokens=4)
        try:
            report = load(endpoint, plan, directory=tmp_path, on_progress=look)
        except Exception as error:  # the first question may be the one that is refused
            assert marker not in f"{error!r} {error}"
            mock.behave(error_rate=0.0)
            report = load(endpoint, plan, directory=tmp_path, on_progress=look)
    assert report.succeeded
    everything = repr(report) + " ".join(arguments) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert marker not in everything


def test_an_interrupt_keeps_the_part_that_was_measured_and_leaves_no_process(mock: MockServer, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        from ipytune.endpoints import Endpoint
        from ipytune.load import LoadInterrupted, Plan, load
        told = []
        def show(progress):
            if progress.done > 4 and not told:
                told.append(1)
                print("measuring", flush=True)
        try:
            load(Endpoint(name="e", base_url={mock.url!r}, model="mock"), Plan(concurrency=(2,), duration=120,
                 output_tokens=8), directory={str(tmp_path)!r}, on_progress=show)
        except LoadInterrupted as stopped:
            print("kept", stopped.report.succeeded > 0, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "measuring\n"
        workers = psutil.Process(child.pid).children(recursive=True)
        # A test that runs in the background inherits an ignored SIGINT; Python then installs no handler.
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "kept True\n"
    assert LoadReport.read(tmp_path).ended == "stopped"
    until(lambda: not any(worker.is_running() for worker in workers), "the end of the workers")


def test_workers_end_when_their_controller_is_killed(mock: MockServer) -> None:
    script = textwrap.dedent(
        f"""
        from ipytune.endpoints import Endpoint
        from ipytune.load import Plan, load
        load(Endpoint(name="e", base_url={mock.url!r}, model="mock"), Plan(concurrency=(2,), duration=120,
             output_tokens=8), on_progress=lambda p: print(p.done, flush=True))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() in ("0", ""):
            pass
        workers = psutil.Process(child.pid).children(recursive=True)
        assert workers
        child.kill()
    until(lambda: not any(worker.is_running() for worker in workers), "the end of the workers")
    until(lambda: mock.stats().in_flight == 0, "the end of the requests")


def test_it_runs_in_a_thread_and_in_a_script_without_a_main_guard(mock: MockServer) -> None:
    found: list[LoadReport] = []
    plan = Plan(concurrency=(1,), requests=2, output_tokens=2)
    thread = threading.Thread(target=lambda: found.append(load(mock.endpoint(), plan)))
    thread.start()
    thread.join(60)
    assert found[0].succeeded == 2


def test_a_failing_on_progress_is_raised_and_leaves_nothing(mock: MockServer) -> None:
    def broken(progress: Progress) -> None:
        raise RuntimeError("broken callback")

    with pytest.raises(RuntimeError, match="broken callback"):
        load(mock.endpoint(), Plan(concurrency=(1,), requests=1), on_progress=broken)
    assert _children() == []


def test_processes_follow_the_expected_rate_and_leave_a_core() -> None:
    plan = Plan(rates=(1,), output_tokens=1000)
    assert processes_for(plan, Load("open", 1), cores=8) == 1
    assert processes_for(plan, Load("open", 25), cores=8) == 3
    assert processes_for(plan, Load("open", 1000), cores=8) == 7
    assert processes_for(plan, Load("open", 1000), cores=1) == 1
    closed = Plan(concurrency=(400,))
    assert processes_for(closed, Load("closed", 400), cores=8) == 3
    assert processes_for(closed, Load("closed", 400), cores=8, tokens_per_user=10) == 1
    assert processes_for(closed.model_copy(update={"processes": 5}), Load("closed", 2), cores=8) == 2


def test_nothing_heavy_is_imported_with_the_package() -> None:
    heavy = ("torch", "transformers", "IPython", "ipywidgets")
    code = f"import sys, ipytune.load; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert told.stdout.strip() == "[]"
