"""What all tests share, and the closing list of what this machine could not run and why."""

import pytest

from tests.clusters.fixtures import kubernetes_cluster, slurm_cluster
from tests.hub.fixtures import hub

__all__ = ["hub", "kubernetes_cluster", "slurm_cluster"]


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
