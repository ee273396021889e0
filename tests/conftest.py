"""What all tests share, and the closing list of what this machine could not run and why.

Where $OBERALP_REQUIRE is set (CI), a test that was skipped fails the run, but for those of a part that it does not name
(`tests.clusters.requirement`): a package that a test wants and the lock lacks is not passed over in silence.
"""

import os
import re

import pytest

from tests.browser.fixtures import chromium_path
from tests.clusters.fixtures import kubernetes_cluster, shared_claim, slurm_cluster
from tests.hub.fixtures import hub
from tests.ipytune.endpoints.fixtures import vllm_python

__all__ = ["chromium_path", "hub", "kubernetes_cluster", "shared_claim", "slurm_cluster", "vllm_python"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each reason for a skip once, with the number of tests and the command that would enable them."""
    reasons = _skipped(terminalreporter)
    if reasons:
        terminalreporter.section("not run on this machine")
        for reason in sorted(set(reasons)):
            count = reasons.count(reason)
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("OBERALP_REQUIRE") or exitstatus not in (0, 1) or reporter is None:
        return
    if any(not re.match(PARTS, reason) for reason in _skipped(reporter)):
        session.exitstatus = NOT_RUN


NOT_RUN = 10  # an exit status of its own: that tests which failed pass when run once more must not hide it
PARTS = r"(slurm|kubernetes|browser|images|firecrest|vllm)\b"  # whose absence `requirement.unavailable` judges


def _skipped(reporter: pytest.TerminalReporter) -> list[str]:
    """The reason of each test that was skipped."""
    reports = reporter.stats.get("skipped", [])
    found = (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr) for report in reports)
    return [reason.removeprefix("Skipped: ") for reason in found]
