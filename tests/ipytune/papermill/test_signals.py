"""Whose signals are whose while a notebook runs."""

import signal

import pytest

from ipytune.papermill.signals import Terminated, ended_by_signals, held_signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_an_exception_once_and_handlers_are_put_back(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as ended, ended_by_signals():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while it cleans up
    assert ended.value.code == status
    assert signal.getsignal(number) is before


def test_stopping_is_cut_short_by_the_second_signal_only() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Terminated), held_signals(said.append, "once more to leave"):
        signal.raise_signal(signal.SIGINT)
        assert "once more" in said[0]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_from_the_start_stays_ignored(number: signal.Signals) -> None:
    """`nohup`, and a shell's `&`: the run outlives its terminal."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with ended_by_signals(), held_signals(lambda message: pytest.fail(message), "stopping"):
            signal.raise_signal(number)
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
