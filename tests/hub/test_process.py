"""The hub process of the tests: one that cannot be used is not left behind."""

from pathlib import Path

import pytest

from tests.hub.process import Hub
from tests.hub.sites import clusters_site


def at_work_in(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == directory:
                found.append(process.name)
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_a_hub_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    hub = Hub(clusters_site(), tmp_path / "hub")
    with pytest.raises(AssertionError, match="the hub does not answer"):
        hub.start(seconds=0.5)
    assert at_work_in(hub.directory) == []
