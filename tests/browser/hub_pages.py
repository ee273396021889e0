"""The hub's pages in a real browser (the system's chromium, by Playwright): log in, and pictures."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.fixtures import CHROMIUM
from tests.hub.process import Hub

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: Page, hub: Hub, name: str) -> None:
    """Log in as a person does; ends on the spawn page."""
    page.goto(f"{hub.url}/hub/login")
    page.fill("#username_input", name)
    page.fill("#password_input", (hub.directory / "state" / "password").read_text().strip())
    page.click("#login_submit")
    page.wait_for_selector("#hybrid")
    page.wait_for_function("document.getElementById('hybrid-reason').textContent.indexOf('Looking') < 0")


def picture(page: Page, path: Path) -> None:
    """A screenshot of the whole page, once nothing moves any more."""
    page.wait_for_load_state("load")
    page.screenshot(path=path, full_page=True, animations="disabled")
