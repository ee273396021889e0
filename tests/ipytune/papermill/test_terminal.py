"""What a run tells: plain lines on the standard error that cannot steer a terminal."""

import io

from ipytune.papermill.terminal import Terminal


def test_a_line_each_and_none_twice() -> None:
    shown = io.StringIO()
    terminal = Terminal(shown)
    for text in ("Queued: place 3", "Queued: place 3", "", "Queued: place 2", "Queued: place 3"):
        terminal.say(text)
    assert [line.split("  ", 1)[1] for line in shown.getvalue().splitlines()] == [
        "Queued: place 3",
        "Queued: place 2",
        "Queued: place 3",
    ]


def test_what_a_hub_says_stays_on_its_line() -> None:
    shown = io.StringIO()
    Terminal(shown).say("ready\x1b[2J\r\nError: not really")
    assert shown.getvalue().count("\n") == 1 and "\x1b" not in shown.getvalue()


def test_a_terminal_that_was_closed_ends_no_run() -> None:
    closed = io.StringIO()
    closed.close()
    Terminal(closed).say("still here")
