"""`ipytune endpoints` and `ipytune chat`: what they print, what they refuse, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ipytune.endpoints.catalogue import Catalogue
from ipytune.endpoints.commands import app
from ipytune.mock import Behaviour, MockServer, start_mock
from tests.ipytune.endpoints.mock_server import Mock, delta, event, reply, stream, words
from tests.ipytune.endpoints.places import Places, places

__all__ = ["places"]  # the fixture

MARKER = "sk-MARKER-0123456789"


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


# --- endpoints ---


def test_an_empty_catalogue_says_how_to_fill_it(places: Places) -> None:
    for arguments in (["endpoints"], ["endpoints", "list"], ["endpoints", "check"]):
        result = run(*arguments)
        assert result.exit_code == 0 and "ipytune endpoints add" in result.output


def test_an_endpoint_is_added_listed_checked_and_removed(places: Places, mock: Mock) -> None:
    mock.models = ("a", "b", "c", "d", "e")
    assert run("endpoints", "add", "mine", mock.url, "--model", "a").exit_code == 0
    listed = run("endpoints", "list").output
    assert "mine" in listed and mock.url in listed and "user" in listed and "none" in listed
    checked = run("endpoints", "check")
    assert checked.exit_code == 0 and "well" in checked.output and "a, b, c and 2 more" in checked.output
    [told] = json.loads(run("endpoints", "check", "--json").stdout)
    assert told["well"] and told["source"] == "user" and told["models"] == list(mock.models)
    assert json.loads(run("endpoints", "list", "--json").stdout)[0]["name"] == "mine"
    assert run("endpoints", "remove", "mine").exit_code == 0
    assert Catalogue.load().names == ()


def test_a_model_is_asked_for_when_none_is_named(places: Places, mock: Mock) -> None:
    assert run("endpoints", "add", "mine", mock.url).exit_code == 0
    assert Catalogue.load().get("mine").model == "m"
    mock.models = ("a", "b")
    result = run("endpoints", "add", "other", mock.url)
    assert result.exit_code == 1 and "--model" in result.stderr


def test_one_that_is_not_well_makes_the_check_fail_and_is_told(places: Places, mock: Mock) -> None:
    places.site(
        {"name": "gone", "base_url": "http://127.0.0.1:9", "model": "m"},
        {"name": "other-model", "base_url": mock.url, "model": "none"},
        {"name": "no-key", "base_url": mock.url, "model": "m", "key_env": "OBERALP_NO_SUCH_KEY"},
    )
    result = run("endpoints", "check")
    assert result.exit_code == 1
    assert "no answer" in result.output and "gone:" in result.output
    assert "does not list the model" in result.output
    assert "$OBERALP_NO_SUCH_KEY (not set)" in result.output
    assert run("endpoints", "check", mock.url).exit_code == 0  # a URL does as well


@pytest.mark.parametrize(
    "arguments",
    [
        ("mine", "http://h", "--model", "m", "--key", MARKER),
        ("mine", "http://h", "--model", "m", "--api-key", "no-known-form"),
        ("mine", "http://h", "--model", "m", "--key-env", MARKER),
        ("mine", "http://h", "--model", "m", "--key-file", MARKER),
        ("mine", f"http://user:{MARKER}@h", "--model", "m"),
        ("mine", f"http://h/?key={MARKER}", "--model", "m"),
        ("mine", "http://h", "--model", MARKER),
        (MARKER, "http://h", "--model", "m"),
    ],
)
def test_a_key_typed_as_a_value_is_refused_with_the_remedy_and_not_repeated(
    places: Places, arguments: tuple[str, ...]
) -> None:
    result = run("endpoints", "add", *arguments)
    assert result.exit_code == 1 and not places.file.exists()
    assert MARKER not in result.output and "no-known-form" not in result.output
    assert "key" in result.stderr


def test_a_file_that_is_not_there_is_told_and_a_path_is_kept_whole(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["endpoints", "add", "mine", "https://h", "--model", "m", "--key-file", "key"]
    assert "is not there" in run(*arguments).stderr
    (tmp_path / "key").write_text("k")
    assert run(*arguments).exit_code == 0
    assert Catalogue.load().get("mine").key_file == tmp_path / "key"


def test_a_key_over_plain_http_gets_a_note_but_not_on_this_machine(places: Places) -> None:
    far = run("endpoints", "add", "far", "http://h", "--model", "m", "--key-env", "A_KEY")
    near = run("endpoints", "add", "near", "http://127.0.0.1:1", "--model", "m", "--key-env", "A_KEY")
    assert "unencrypted" in far.stderr and "unencrypted" not in near.stderr


def test_what_cannot_be_removed_is_told(places: Places) -> None:
    places.site({"name": "site", "base_url": "http://h", "model": "m"})
    result = run("endpoints", "remove", "site")
    assert result.exit_code == 1 and "no endpoint of that name" in result.stderr


def test_a_broken_file_is_told_beside_what_there_is(places: Places) -> None:
    places.site({"name": "site", "base_url": "http://h", "model": "m"})
    places.user("a: [")
    result = run("endpoints", "list")
    assert result.exit_code == 0 and "site" in result.stdout and "not YAML" in result.stderr


# --- chat, one question ---


def test_a_question_is_answered_with_its_times_beside(places: Places, mock: Mock) -> None:
    result = run("chat", "hi", "--endpoint", mock.url, "--system", "Be brief.", "--max-tokens", "7")
    assert result.exit_code == 0 and result.stdout == "hello there\n" and "first token" in result.stderr
    sent = mock.requests[0].body
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert sent["max_tokens"] == 7 and "temperature" not in sent


def test_the_only_endpoint_need_not_be_named_and_a_prompt_comes_from_a_pipe(places: Places, mock: Mock) -> None:
    places.site({"name": "site", "base_url": mock.url, "model": "m"})
    assert run("chat", "-", stdin="two\nlines").stdout == "hello there\n"
    assert mock.requests[0].body["messages"][0]["content"] == "two\nlines"


def test_json_holds_the_whole_answer(places: Places, mock: Mock) -> None:
    told = json.loads(run("chat", "hi", "--url", mock.url, "--json").stdout)
    assert told["text"] == "hello there" and told["finish_reason"] == "stop"
    assert told["metrics"]["output_tokens"] == 2 and told["endpoint"]["base_url"] == mock.url
    assert told["tool_calls"] == [] and told["logprobs"] == []


def test_logprobs_are_shown_a_line_a_token(places: Places, mock: Mock) -> None:
    top = [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": -1.5}]
    entry = {"token": "a", "logprob": -0.25, "top_logprobs": top}
    chunk = event({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [entry]}}]})
    mock.replies(stream(chunk, delta(finish_reason="stop")))
    shown = run("chat", "hi", "--endpoint", mock.url, "--logprobs").stdout
    assert "-0.250  'a'   instead of 'b' -1.50" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--endpoint", "http://127.0.0.1:9", "--model", "m"], "cannot be reached"),
        (["--endpoint", "nothing"], "no endpoint “nothing”"),
        ([], "Which endpoint?"),
        (["--endpoint", "h:1"], "Write http://h:1"),
        (["--endpoint", "http://h", "--model", "m", "--key-env", "sk-x"], "NAME of an environment variable"),
        (["--endpoint", "http://h", "--model", "m", "--key-env", "OBERALP_NO_SUCH_KEY"], "OBERALP_NO_SUCH_KEY"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_exit_code_1(places: Places, arguments: list[str], told: str) -> None:
    result = run("chat", "hi", *arguments)
    assert result.exit_code == 1 and told in result.stderr and "Traceback" not in result.output


def test_a_servers_words_cannot_steer_the_terminal(places: Places, mock: Mock) -> None:
    mock.replies(reply(400, {"error": {"message": "\x1b]0;owned\x07 \u202eno"}}))
    result = run("chat", "hi", "--endpoint", mock.url)
    assert result.exit_code == 1 and "\x1b" not in result.stderr and "\u202e" not in result.stderr


# --- chat, a conversation ---


def test_turns_build_on_one_another_and_a_failed_one_is_taken_back(places: Places, mock: Mock) -> None:
    mock.replies(words("one"), reply(400, {"error": "no"}), words("three"))
    result = run("chat", "--endpoint", mock.url, stdin="first\n\nsecond\nthird\n")
    assert result.exit_code == 0 and result.stdout == "one\nthree\n" and "did not accept" in result.stderr
    assert [message["content"] for message in mock.requests[-1].body["messages"]] == ["first", "one", "third"]


def test_each_turn_is_a_line_of_json_when_asked_for(places: Places, mock: Mock) -> None:
    lines = run("chat", "--endpoint", mock.url, "--json", stdin="a\nb\n").stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["hello there", "hello there"]


class Chat:
    """`ipytune chat` in a process of its own, and what it has written so far."""

    def __init__(self, server: MockServer, folder: Path, *arguments: str) -> None:
        environment = {**os.environ, "IPYTUNE_ENDPOINTS_FILE": str(folder / "e.yaml"), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from ipytune.endpoints.commands import app; app()", "chat", *arguments]
            + ["--endpoint", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "JUPYTER_RUNTIME_DIR": str(folder)},
            # a test run in the background is told to ignore interrupts, and would hand that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.out, self.err = "", ""
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, pipe: object) -> None:
        while letter := pipe.read(1):  # type: ignore[attr-defined]
            setattr(self, name, getattr(self, name) + letter)

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def until(self, holds: object) -> None:
        deadline = time.monotonic() + 60
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < deadline, (self.out, self.err)
            time.sleep(0.02)

    def ended(self) -> int:
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        return code


@contextmanager
def chatting(server: MockServer, folder: Path, *arguments: str) -> Iterator[Chat]:
    chat = Chat(server, folder, *arguments)
    try:
        yield chat
    finally:
        if chat.process.poll() is None:
            chat.process.kill()
        chat.process.wait()
        for pipe in (chat.process.stdin, chat.process.stdout, chat.process.stderr):
            assert pipe is not None
            pipe.close()


def test_an_interrupt_cancels_the_answer_and_the_conversation_goes_on(tmp_path: Path) -> None:
    with start_mock(Behaviour(hang_after=2), process=False) as server, chatting(server, tmp_path) as chat:
        chat.type("first")
        chat.until(lambda: len(chat.out.split()) >= 2)
        chat.interrupt()
        chat.until(lambda: "Cancelled" in chat.err)
        chat.until(lambda: server.stats().cancelled == 1)
        server.behave(hang_after=None, tokens=3)
        chat.type("second")
        chat.until(lambda: "first token" in chat.err)
        assert chat.process.stdin is not None
        chat.process.stdin.close()
        assert chat.ended() == 0
        roles = [message["role"] for message in server.requests()[-1].body["messages"]]
        assert roles == ["user", "assistant", "user"]  # what came before the interrupt is kept


def test_a_second_interrupt_ends_it(tmp_path: Path) -> None:
    with start_mock(Behaviour(hang_after=2), process=False) as server, chatting(server, tmp_path) as chat:
        chat.type("first")
        chat.until(lambda: len(chat.out.split()) >= 2)
        chat.interrupt()
        chat.until(lambda: "Cancelled" in chat.err)
        chat.interrupt()
        assert chat.ended() == 130 and "Traceback" not in chat.err


def test_an_interrupted_question_ends_with_130_and_the_server_stops(tmp_path: Path) -> None:
    with start_mock(Behaviour(hang_after=2), process=False) as server, chatting(server, tmp_path, "hi") as chat:
        chat.until(lambda: len(chat.out.split()) >= 2)
        chat.interrupt()
        assert chat.ended() == 130 and "Traceback" not in chat.err
        chat.until(lambda: server.stats().in_flight == 0 and server.stats().cancelled == 1)
