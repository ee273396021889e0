"""The panels in JupyterLab in a real browser: buttons, moving pictures, streams, and a reload that loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ipytune.runs import Phase, Run
from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, panel, run_cell, until
from tests.browser.tiny_model import write_tiny_data, write_tiny_model
from tests.ipytune.endpoints.mock_server import Mock, mock_server, words

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("chromium_path")]
SECRET = "typed-SECRET-4711"
CURVE = "document.querySelector('.ipt-smooth')?.getAttribute('d')?.split('L').length > {}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    write_tiny_model(folder / "tiny")
    write_tiny_data(folder / "train.jsonl")
    with lab_server(folder) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as opened:
        yield opened


@pytest.fixture
def mock() -> Iterator[Mock]:
    with mock_server() as running:
        yield running


TRAINING = """
from ipytune.lora.config import RunConfig
from ipytune.widgets import TrainingPanel
config = RunConfig(model="tiny", train_file="train.jsonl", max_steps=100_000, checkpoint_every=0, threads=1)
panel = TrainingPanel(config, "run")
panel
"""


def test_start_draws_a_curve_that_moves_and_stop_works_while_a_cell_waits(lab: Lab, page: Page) -> None:
    lab.write_notebook("train.ipynb", [TRAINING, "report = panel.wait()"])
    open_notebook(page, lab, "train.ipynb")
    run_cell(page, 0)
    shown = panel(page, "Fine-tuning")
    expect(shown.get_by_text("The loss appears here")).to_be_visible()
    shown.get_by_role("button", name="Start").click()
    page.wait_for_function(CURVE.format(5), timeout=120_000)
    page.wait_for_function(CURVE.format(10), timeout=60_000)  # and it goes on

    page.reload()  # the run goes on, and the panel shows it whole again
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    run_cell(page, 0)
    page.wait_for_function(CURVE.format(10), timeout=60_000)

    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text("[*]:")
    shown.get_by_role("button", name="Stop").click()
    until(lambda: Run.open(lab.folder / "run").status().phase is Phase.STOPPED, "the end of the run", 90)
    expect(shown.locator(".ipt-badge")).to_have_text("stopped", timeout=20_000)
    expect(shown.get_by_role("button", name="Continue")).to_be_enabled()
    assert (lab.folder / "run" / "adapter" / "adapter_config.json").exists()


def test_a_chat_streams_is_cancelled_and_keeps_no_typed_key(lab: Lab, page: Page, mock: Mock) -> None:
    gate = threading.Event()
    mock.answer = lambda _: words("first <img/src=x> last", gate)
    cell = (
        "from ipytune.endpoints import Endpoint\nfrom ipytune.widgets import ChatPanel\n"
        f"chat = ChatPanel(Endpoint(name='e', base_url={mock.url!r}, model='m'))\nchat"
    )
    lab.write_notebook("chat.ipynb", [cell])
    open_notebook(page, lab, "chat.ipynb")
    run_cell(page, 0)
    shown = panel(page, "Chat with an endpoint")
    shown.get_by_text("Type a key").click()
    shown.get_by_label("Key for this endpoint").fill(SECRET)
    shown.get_by_role("button", name="Use key").click()
    expect(shown.get_by_text("key typed for this panel")).to_be_visible()
    assert shown.get_by_label("Key for this endpoint").input_value() == ""

    shown.locator("textarea").fill("hi")
    page.keyboard.press("Enter")
    expect(shown.locator(".ipt-text")).to_have_text("first")  # before the answer is whole
    gate.set()
    expect(shown.locator(".ipt-text")).to_have_text("first <img/src=x> last")  # as text, not as an image
    expect(shown.locator(".ipt-value").nth(2)).to_have_text("3")
    assert mock.requests[0].headers["authorization"] == f"Bearer {SECRET}"

    gate.clear()
    shown.locator("textarea").fill("again")
    page.keyboard.press("Enter")
    expect(shown.locator(".ipt-text").nth(1)).to_have_text("first")
    shown.get_by_role("button", name="Cancel").click()
    expect(shown.get_by_text("Cancelled; this is what had come.")).to_be_visible()
    assert mock.client_left.wait(5)

    page.keyboard.press("Control+s")
    saved: Path = lab.folder / "chat.ipynb"
    until(lambda: "ChatPanel(e)" in saved.read_text(), "the saved notebook", 20)
    assert SECRET not in saved.read_text()
