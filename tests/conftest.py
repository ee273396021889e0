"""What all tests share, and the closing list of what this machine could not run and why."""

import pytest

from tests.clusters.fixtures import kubernetes_cluster, slurm_cluster
from tests.hub.fixtures import hub

__all__ = ["hub", "kubernetes_cluster", "slurm_cluster"]


# Two streams when tests run in parallel (-n 2 --dist loadgroup): what uses clusters, hubs and browsers mostly waits and
# must not meet itself on the one cluster; what computes runs beside it.
WAITING = ("tests/clusters", "tests/hub", "tests/browser", "tests/images", "tests/hybridspawner/test_slurm_clients.py")


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        stream = "waiting" if item.nodeid.startswith(WAITING) else "computing"
        item.add_marker(pytest.mark.xdist_group(stream))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each reason for a skip once, with the number of tests and the command that would enable them."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        terminalreporter.section("not run on this machine")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")
