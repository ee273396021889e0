"""Starting and stopping: a thread, a process, several processes, the command. Nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from ipytune.mock import Behaviour, MockFailed, MockServer, start_mock
from ipytune.mock.commands import app
from tests.ipytune.mock.talk import USER, until

MARKER = "marker0of0a0secret"
COMMAND = [sys.executable, "-c", "from ipytune.mock.commands import app; app()"]


def ask(server: MockServer) -> int:
    """With a connection of its own, so that the kernel may give it to any of the processes."""
    body = {"model": "mock", "messages": USER}
    return httpx.post(f"{server.url}/chat/completions", json=body, trust_env=False, timeout=20).status_code


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_several_processes_count_as_one() -> None:
    with start_mock(Behaviour(tokens=2), processes=3) as server:
        assert len(server.pids) == 3
        assert [ask(server) for _ in range(12)] == [200] * 12
        stats, truth = server.stats(), server.truth()
        assert (stats.requests, stats.completed, stats.tokens) == (12, 12, 24)
        assert len({item.id for item in truth}) == 12
        assert [item.arrival for item in truth] == sorted(item.arrival for item in truth)
        page = httpx.get(f"{server.root}/metrics", trust_env=False).text.splitlines()
        assert 'vllm:generation_tokens_total{engine="0",model_name="mock"} 24' in page
        server.behave(text="one")
        assert [ask(server) for _ in range(6)] == [200] * 6
        assert server.stats().tokens == 30
        server.reset()
        assert server.stats().requests == 0
        pids = server.pids
    until(lambda: all(gone(pid) for pid in pids))


def test_a_key_is_in_no_command_line_and_no_environment() -> None:
    with start_mock(Behaviour(key=MARKER)) as server:
        (pid,) = server.pids
        for what in ("cmdline", "environ"):
            assert MARKER.encode() not in Path(f"/proc/{pid}/{what}").read_bytes()
        assert server.stats().requests == 0
        assert server.endpoint().read_key() is not None


def test_the_record_names_the_server_and_a_model() -> None:
    with start_mock(Behaviour(models=("base", "tuned")), process=False) as server:
        assert server.endpoint().model == "base" and server.endpoint("b", "tuned").model == "tuned"
        assert server.endpoint().base_url == server.url and server.endpoint(key_env="A").key_env == "A"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_is_taken_is_said_so(processes: int) -> None:
    with start_mock(process=False) as server, pytest.raises(MockFailed, match=f"port {server.port}.*0 for a free one"):
        start_mock(port=server.port, processes=processes)


def test_a_port_that_is_taken_is_said_so_by_a_thread() -> None:
    with start_mock(process=False) as server, pytest.raises(MockFailed, match="0 for a free one"):
        start_mock(port=server.port, process=False)


def test_what_cannot_be_is_said_so() -> None:
    with pytest.raises(ValueError, match="process=False"):
        start_mock(Behaviour(text=lambda body: "x"))
    with pytest.raises(ValueError, match="^processes"):
        start_mock(processes=0)
    with pytest.raises(ValueError, match="^port"):
        start_mock(port=70_000)


def test_a_stopped_mock_says_that_it_is() -> None:
    server = start_mock(process=False)
    server.stop()
    server.stop()
    assert not server.running
    with pytest.raises(MockFailed, match="Has it been stopped"):
        server.stats()


def test_behaviour_is_checked_before_it_is_sent() -> None:
    with start_mock(process=False) as server:
        with pytest.raises(ValueError, match="^ttft"):
            server.behave(ttft=-1)
        with pytest.raises(ValueError, match="^key"):
            server.behave(key="x")


def test_a_process_ends_when_its_parent_is_killed() -> None:
    program = "from ipytune.mock import start_mock; s = start_mock(processes=2); print(*s.pids, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdin is not None
    with parent.stdout, parent.stdin:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and not any(gone(pid) for pid in pids)
        parent.kill()
        parent.wait(20)
    until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(MARKER)
    options = ["--ttft", "0", "--itl", "0", "--set", "tokens_per_chunk=2", "--model", "m", "--key-file", str(key)]
    # An ignored Ctrl-C, as in a background job, would stay ignored in the child.
    program = subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert program.stdout is not None
    url = program.stdout.readline().strip()
    headers = {"Authorization": f"Bearer {MARKER}"}
    assert httpx.get(f"{url}/models", headers=headers, trust_env=False).json()["data"][0]["id"] == "m"
    program.send_signal(number)
    _, said = program.communicate(timeout=20)
    assert program.returncode == 0 and "curl" in said and "Stopped." in said
    assert MARKER not in said
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models", trust_env=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ttft", "-1"], "ttft: -1.0 is not allowed"),
        (["--set", "hang_aftr=1"], "Did you mean hang_after"),
        (["--set", "hang_after"], "FIELD=VALUE"),
        (["--set", f"key={MARKER}"], "--key-env"),
        (["--key-env", "OBERALP_NO_SUCH_KEY"], "is not set"),
        (["--key-file", "/no/such/file"], "cannot be read"),
        (["--answers", "/no/such/file"], "cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 1 and said in done.output and MARKER not in done.output


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys, ipytune.mock; print([n for n in ('torch', 'pydantic', 'httpx', 'typer') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
