"""Fine-tune, serve, load the adapter into the running vLLM, compare, evaluate: in JupyterLab, with a real vLLM.

The whole of the shipped task, scored on 40 held-out requests: some ten minutes on two quiet cores. Pictures of the
panels go to $IPYTUNE_PICTURES, if set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from ipytune.evaluate.result import Evaluation
from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, panel, run_cell

pytestmark = [
    pytest.mark.browser,
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("chromium_path", "vllm_python"),
]
TRAIN = """
from ipytune.lora.config import RunConfig
from ipytune.widgets import ComparePanel, EvaluationPanel, TrainingPanel
config = RunConfig.first_task()
panel = TrainingPanel(config, "run")
panel
"""
SERVE = """
from ipytune.endpoints.serve import serve
server = serve(config.model, engine="vllm", extra=("--max-model-len", "1024"))
"""
LOAD = """
tuned = server.load_adapter(panel.training, "tuned")
sides = ComparePanel([server.base, tuned], temperature=0, max_tokens=96)
sides
"""
SCORE = """
scores = EvaluationPanel(config.eval_file, [server.base, tuned], ["exact"], limit=40, max_tokens=96, directory="scores")
scores
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_server(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page(width=1100, height=1300) as opened:
        yield opened


def keep(shown: Locator, name: str) -> None:
    if folder := os.environ.get("IPYTUNE_PICTURES"):
        shown.screenshot(path=Path(folder) / f"{name}.png")


def test_a_tuned_adapter_is_better_in_the_vllm_that_was_running(lab: Lab, page: Page) -> None:
    lab.write_notebook("chain.ipynb", [TRAIN, SERVE, LOAD, SCORE, "server.stop()"])
    open_notebook(page, lab, "chain.ipynb")
    run_cell(page, 0)
    training = panel(page, "Fine-tuning").first
    training.get_by_role("button", name="Start").click()
    expect(training.get_by_role("status").first).to_have_text("completed", timeout=900_000)
    keep(training, "chain-training")

    run_cell(page, 1, seconds=300)  # of the base alone; the adapter comes while it runs
    run_cell(page, 2)
    sides = panel(page, "Answers side by side").first
    sides.get_by_label("Ask all of them").fill("two nodes, four GPUs each, three hours, partition normal")
    page.keyboard.press("Enter")
    answers = sides.locator(":scope > .ipt-columns .ipt-text")
    expect(answers.nth(1)).to_contain_text("#SBATCH --nodes=2", timeout=60_000)
    expect(sides.locator(":scope > .ipt-columns .ipt-value").nth(1)).to_be_visible(timeout=60_000)
    keep(sides, "chain-sides")

    run_cell(page, 3)
    scores = panel(page, "Evaluation").first
    scores.get_by_role("button", name="Start").click()
    expect(scores.get_by_role("status")).to_have_text("completed", timeout=900_000)
    expect(scores.get_by_label("What the numbers say")).to_contain_text("better")
    keep(scores, "chain-scores")
    run_cell(page, 4)

    found = Evaluation.open(lab.folder / "scores")
    base, tuned = (found.summary(name) for name in found.endpoints)
    print(json.dumps({"verdicts": found.verdicts, "summaries": [str(base), str(tuned)]}, indent=1))
    assert base.interval.high < tuned.interval.low
    assert found.comparisons[0].interval.low > 0
