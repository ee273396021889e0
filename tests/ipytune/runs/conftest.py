"""Golden texts: what is written for people is kept beside the tests, and read when it changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a text with golden/NAME; UPDATE_GOLDEN=1 writes it, to be read in the diff."""

    def compare(name: str, text: str) -> None:
        file = Path(__file__).parent / "golden" / name
        if os.environ.get("UPDATE_GOLDEN") == "1":
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{name} has changed; UPDATE_GOLDEN=1 accepts it"

    return compare
