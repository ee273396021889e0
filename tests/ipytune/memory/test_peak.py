"""Peak memory is a process's own, whatever the process that started it had held."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ipytune.lora import hardware
from ipytune.memory.peak import peak_resident

HELD = 400 * 2**20
STARTED = "from ipytune.memory.peak import peak_resident; print(peak_resident())"
STARTER = (
    f"import subprocess, sys; held = b'x' * {HELD}; subprocess.run([sys.executable, '-c', {STARTED!r}], check=True)"
)


def test_what_the_starter_held_does_not_count() -> None:
    done = subprocess.run([sys.executable, "-c", STARTER], capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < HELD / 2


def test_what_was_held_and_given_back_counts() -> None:
    held = b"x" * HELD
    del held
    assert peak_resident() > HELD


def test_the_trainer_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "peak_resident", lambda: 42)
    assert hardware.peak_memory_bytes(torch.device("cpu")) == 42
