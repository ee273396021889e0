"""The comparison in JupyterLab in a real browser: blind votes, edits, a column that fails, cancelling, keys, focus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from ipytune.compare.blind import Lots
from ipytune.mock import Behaviour, MockServer, start_mock
from tests.browser.lab import Lab, browser_page, lab_server, open_notebook, panel, run_cell, until

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("chromium_path")]
SECRET = "typed-SECRET-4713"
TURNED = next(seed for seed in range(50) if Lots(seed).sitting(2, True).order == (1, 0))
MODELS = ("model-one", "model-two")
LABEL = "Answers side by side"
SAVE = "Control+s"


def said(body: Mapping[str, Any]) -> str:
    return f"{'first' if body['model'] == MODELS[0] else 'second'} heard {body['messages'][-1]['content']} \u202e<b>"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_server(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as opened:
        yield opened


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(models=MODELS, text=said, itl=0.01), process=False) as running:
        yield running


def source(mock: MockServer, *models: str, **options: object) -> str:
    names = [
        f"Endpoint(name={name!r}, base_url={mock.url!r}, model={model!r})"
        for name, model in zip(("alpha", "beta"), models, strict=True)
    ]
    words = "".join(f", {name}={value!r}" for name, value in options.items())
    return (
        "from ipytune.endpoints import Endpoint\nfrom ipytune.widgets import ComparePanel\n"
        f"panel = ComparePanel([{', '.join(names)}]{words})\npanel"
    )


def shown(page: Page, lab: Lab, name: str, *cells: str) -> Locator:
    lab.write_notebook(name, cells)
    open_notebook(page, lab, name)
    run_cell(page, 0)
    return panel(page, LABEL).first


def ask(page: Page, sides: Locator, prompt: str) -> None:
    sides.get_by_label("Ask all of them").fill(prompt)
    page.keyboard.press("Enter")


def newest(sides: Locator, what: str) -> Locator:
    return sides.locator(f":scope > .ipt-columns {what}")


def test_a_blind_comparison_is_voted_on_edited_and_brought_back(lab: Lab, page: Page, mock: MockServer) -> None:
    sides = shown(page, lab, "blind.ipynb", source(mock, *MODELS, blind=True, blind_seed=TURNED), "panel")
    ask(page, sides, "hi")
    expect(newest(sides, ".ipt-text").nth(0)).to_have_text("second heard hi ⟨U+202E⟩<b>")  # as text
    expect(newest(sides, ".ipt-text").nth(1)).to_have_text("first heard hi ⟨U+202E⟩<b>")
    vote = sides.get_by_role("group", name="Which answer is better?")
    expect(vote.get_by_role("button")).to_have_text(["A is better", "B is better", "Tie", "Both bad"])
    drawn = newest(sides, "").inner_html() + sides.locator(".ipt-tally").inner_html()
    assert not re.search("alpha|beta|model-|tokens/s", drawn)

    vote.get_by_role("button", name="A is better").focus()
    page.keyboard.press("Enter")
    expect(newest(sides, "strong").nth(0)).to_have_text("beta")
    expect(newest(sides, ".ipt-best strong")).to_have_text("beta")
    expect(sides.locator(".ipt-tally")).to_contain_text("beta: preferred in 1 of 1")
    expect(newest(sides, ".ipt-value").nth(2)).to_have_text("4")
    sides.get_by_text("From beta to alpha").click()
    expect(sides.locator("del")).to_have_text("second ")

    sides.get_by_role("button", name="Edit").click()
    field = sides.get_by_label("The turn in other words")
    expect(field).to_be_focused()
    field.fill("hello")
    page.keyboard.press("Enter")
    expect(newest(sides, ".ipt-text").nth(0)).to_contain_text("heard hello")
    expect(vote.get_by_role("button")).to_have_count(4)  # hidden and drawn anew
    sides.get_by_role("button", name="Undo").click()
    expect(newest(sides, ".ipt-text").nth(0)).to_have_text("second heard hi ⟨U+202E⟩<b>")

    ask(page, sides, "more")
    expect(newest(sides, ".ipt-text").nth(1)).to_contain_text("heard more")
    expect(sides.get_by_text("1 round before")).to_be_visible()
    expect(sides.get_by_role("button", name="Show the names")).to_be_visible()
    sides.get_by_role("button", name="Show the names").click()
    expect(newest(sides, "strong").filter(has_text="alpha")).to_have_count(1)

    run_cell(page, 1)  # a second view, drawn from the state alone
    again = panel(page, LABEL).nth(1)
    expect(newest(again, ".ipt-text").nth(1)).to_contain_text("heard more")
    expect(newest(again, "strong").filter(has_text="alpha")).to_have_count(1)
    expect(again.get_by_text("1 round before")).to_be_visible()


def test_one_column_fails_while_the_other_streams_and_is_cancelled(lab: Lab, page: Page, mock: MockServer) -> None:
    mock.behave(hang_after=2)
    sides = shown(page, lab, "fails.ipynb", source(mock, MODELS[0], "missing"))
    ask(page, sides, "hi")
    expect(newest(sides, ".ipt-text").nth(0)).to_have_text("first heard")
    expect(newest(sides, ".ipt-problem").nth(1)).to_contain_text("missing")
    field = sides.get_by_label("Ask all of them")
    field.press_sequentially("the next one", delay=30)  # while pictures come, what is typed stays and so does the focus
    expect(field).to_have_value("the next one")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    expect(sides.get_by_text("Cancelled; this is what had come.")).to_be_visible()
    until(lambda: mock.stats().cancelled == 1, "the server's notice", 10)
    expect(field).to_have_value("the next one")

    sides.get_by_text("Settings").click()
    temperature = sides.get_by_label("Temperature")
    temperature.fill("9")
    page.keyboard.press("Tab")
    expect(sides.get_by_role("alert").filter(has_text="from 0 to 2")).to_be_visible()
    expect(temperature).to_have_attribute("aria-invalid", "true")
    field.focus()
    page.keyboard.press("Enter")
    expect(sides.get_by_text("A setting is wrong, so nothing was sent.")).to_be_visible()

    sides.get_by_text("Export").click()
    sides.get_by_role("button", name="Notebook cell").click()
    expect(sides.locator(".ipt-code")).to_contain_text("panel.ask('hi')")
    assert (lab.folder / "comparison.py").is_file()


def test_a_typed_key_is_used_and_is_in_no_notebook_and_no_state(lab: Lab, page: Page) -> None:
    with start_mock(Behaviour(models=MODELS, key=SECRET, text="let in"), process=False) as mock:
        cells = [source(mock, *MODELS), "print(panel.get_state())"]
        sides = shown(page, lab, "key.ipynb", *cells)
        sides.get_by_text("Type a key").click()
        for name in ("alpha", "beta"):
            sides.get_by_label("Endpoint of the key").select_option(name)
            field = sides.get_by_label("Key for this endpoint")
            field.fill(SECRET)
            sides.get_by_role("button", name="Use key").click()
            assert field.input_value() == ""
            sides.get_by_text("Type a key").click()
        ask(page, sides, "hi")
        expect(newest(sides, ".ipt-text").nth(1)).to_have_text("let in")
    run_cell(page, 1)
    assert SECRET not in page.content()
    page.keyboard.press(SAVE)
    saved = lab.folder / "key.ipynb"
    until(lambda: "let in" in saved.read_text(), "the saved notebook", 20)
    assert SECRET not in saved.read_text()
    assert nbformat.read(saved, as_version=4).cells[1].outputs
