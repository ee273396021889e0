"""From data to answers side by side in JupyterLab, by mouse and keyboard, with the kernel restarted in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from ipytune.runs import Phase, Run
from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, panel, run_cell, until
from tests.browser.tiny_model import write_tiny_model

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("chromium_path")]
CURVE = "document.querySelector('.ipt-smooth')?.getAttribute('d')?.split('L').length > {}"
CELL = """
from ipytune.widgets import FineTunePanel
panel = FineTunePanel("run", max_steps=100_000, checkpoint_every=20, threads=1)
panel
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    write_tiny_model(folder / "tiny")
    rows = [f"{a} nodes {b},{b} hours {a}" for a in ("one", "two", "three") for b in ("four", "five", "six")]
    (folder / "rows.csv").write_text("\n".join(["question,answer", *rows]) + "\n")
    with lab_server(folder) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page(height=1400) as opened:
        yield opened


def restart_kernel(lab: Lab) -> None:
    with httpx.Client(base_url=lab.url, params={"token": lab.token}, trust_env=False, timeout=60) as http:
        for kernel in http.get("api/kernels").json():
            http.post(f"api/kernels/{kernel['id']}/restart").raise_for_status()

        def settled() -> bool:
            return all(kernel["execution_state"] == "idle" for kernel in http.get("api/kernels").json())

        until(settled, "the restarted kernel", 60)


def test_from_data_to_answers_side_by_side(lab: Lab, page: Page) -> None:
    lab.write_notebook("tune.ipynb", [CELL])
    open_notebook(page, lab, "tune.ipynb")
    run_cell(page, 0)
    shown = panel(page, "Fine-tuning, step by step")

    # Data: columns that must be mapped, then a look at what will be learned.
    file = shown.get_by_label("Conversations to learn from")
    file.fill("rows.csv")
    file.press("Tab")
    shown.get_by_role("button", name="Use these").click()
    shown.get_by_label("Model", exact=True).fill("tiny")
    shown.get_by_label("Model", exact=True).press("Tab")
    shown.get_by_role("button", name="Check the data").click()
    expect(shown.get_by_text("Nothing is wrong with the data.")).to_be_visible(timeout=60_000)
    expect(shown.locator(".ipt-batch mark").first).to_be_visible()
    expect(shown.get_by_role("tab", name=re.compile("^Data.*done"))).to_be_visible()

    # Settings by keyboard: from tab to tab with the arrows; a wrong value says so where it stands.
    shown.get_by_role("tab", name=re.compile("^Data")).focus()
    page.keyboard.press("ArrowRight")
    expect(shown.get_by_role("tab", name=re.compile("^Settings"))).to_be_focused()
    rank = shown.get_by_label("Rank", exact=True)
    rank.fill("many")
    rank.press("Tab")
    expect(shown.get_by_text("valid integer")).to_be_visible()
    expect(rank).to_have_attribute("aria-invalid", "true")
    rank.fill("4")
    rank.press("Tab")
    expect(shown.get_by_text("valid integer")).to_be_hidden()

    # Memory
    shown.get_by_role("button", name="Memory →").click()
    expect(shown.locator(".ipt-verdict")).to_contain_text("Fits", timeout=30_000)

    # Training: a curve that moves; the kernel is restarted, and the run goes on and is shown again.
    shown.get_by_role("button", name="Training →").click()
    shown.get_by_role("button", name="Start training").click()
    page.wait_for_function(CURVE.format(5), timeout=120_000)
    run = Run.open(lab.folder / "run")
    restart_kernel(lab)
    page.reload()
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=90_000)
    assert not run.status().phase.final
    run_cell(page, 0)
    expect(shown.get_by_role("tab", name=re.compile("^Training"))).to_have_attribute("aria-selected", "true")
    page.wait_for_function(CURVE.format(10), timeout=60_000)
    shown.get_by_role("button", name="Stop", exact=True).click()
    until(lambda: run.status().phase is Phase.STOPPED, "the end of the run", 90)

    # Adapter: base and tuned model side by side.
    shown.get_by_role("button", name="Adapter →").click()
    shown.get_by_role("button", name="Ask base and tuned model").click()
    question = shown.locator("textarea.ipt-prompt")
    expect(question).to_have_value(re.compile("nodes"), timeout=120_000)
    question.press("Enter")
    answers = shown.locator(".ipt-columns .ipt-answer")
    expect(answers).to_have_count(2)
    for number in range(2):  # numbers with a text; of a model that has learned so little, perhaps no word
        told = answers.nth(number).locator(".ipt-value, .ipt-note:has-text('empty')")
        expect(told.first).to_be_visible(timeout=60_000)

    page.keyboard.press("Control+s")
    saved: Path = lab.folder / "tune.ipynb"
    until(lambda: "FineTunePanel(run" in saved.read_text(), "the saved notebook", 20)
