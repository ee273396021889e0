"""The browser of this machine, for the tests that need one."""

import shutil

import pytest

from tests.clusters.requirement import unavailable

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is; skips when it is not installed."""
    if CHROMIUM is None:
        unavailable("browser", "chromium is not installed", "apt-get install chromium")
    return CHROMIUM
