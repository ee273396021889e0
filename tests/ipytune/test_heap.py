"""Large pages are asked for where they are of a useful size, and where the user has not decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipytune.heap import TUNABLE, use_large_pages


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, f"{TUNABLE}=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, f"glibc.malloc.arena_max=2:{TUNABLE}=1"),
        ({"GLIBC_TUNABLES": f"{TUNABLE}=0"}, f"{TUNABLE}=0"),
    ],
)
def test_asked_for_unless_the_user_decided(given: dict[str, str], asked: str, tmp_path: Path) -> None:
    (tmp_path / "size").write_text("2097152\n")
    use_large_pages(given, tmp_path / "size")
    assert given == {"GLIBC_TUNABLES": asked}


@pytest.mark.parametrize("size", ["536870912\n", "0\n", "none\n", None])
def test_not_asked_for_where_there_are_none_of_a_useful_size(size: str | None, tmp_path: Path) -> None:
    if size is not None:
        (tmp_path / "size").write_text(size)
    environment: dict[str, str] = {}
    use_large_pages(environment, tmp_path / "size")
    assert environment == {}
