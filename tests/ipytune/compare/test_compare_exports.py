"""Comparisons taken away: a cell that asks the same, JSON, a page; nothing overwritten, nothing run, no key."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ipytune.compare import Comparison
from ipytune.compare.cell import literal
from ipytune.compare.export import write
from ipytune.endpoints import BadRequest, Endpoint
from ipytune.mock import Behaviour, MockServer, start_mock

EVIL = '"""); import os; os.abort() # <script>alert(1)</script> \u202e \x1b[2J'
MARKER = "sk-MARKER-0815"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    behaviour = Behaviour(models=("base", "tuned"), text=f"{EVIL} <img src=x>", key=MARKER, reasoning_tokens=2)
    with start_mock(behaviour, process=False) as running:
        yield running


@pytest.fixture
def comparison(mock: MockServer, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    monkeypatch.setenv("A_KEY", MARKER)
    named = mock.endpoint("named", "base", key_env="A_KEY")
    typed = Endpoint(name="typed", base_url=mock.url, model="tuned")
    made = Comparison([named, typed], keys={"typed": SecretStr(MARKER)}, system=EVIL, temperature=0, stop=["\n\n"])
    made.ask(EVIL, 20)
    assert all(takes[0].error is None for takes in made.rounds[0].takes)
    return made


def calls(source: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """The calls at the top of a cell, with their arguments read as literals."""
    found = []
    for statement in ast.parse(source).body:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func) != "display":
            name = ast.unparse(value.func)
            arguments = [item for item in value.args if name != "ComparePanel"]
            given_by_name = {str(item.arg): ast.literal_eval(item.value) for item in value.keywords}
            found.append((name, [ast.literal_eval(item) for item in arguments], given_by_name))
    return found


def test_the_cell_asks_the_same_and_holds_values_as_literals_only(comparison: Comparison) -> None:
    comparison.parameters = comparison.parameters.changed("temperature", 0.5).changed("stop", None)
    comparison.new_conversation()
    comparison.ask("more", 20)
    assert calls(comparison.to_cell()) == [
        ("ComparePanel", [], {"system": EVIL, "temperature": 0.0, "stop": ["\n\n"]}),
        ("panel.ask", [EVIL], {}),
        ("panel.set", ["stop", None], {}),
        ("panel.set", ["temperature", 0.5], {}),
        ("panel.new_conversation", [], {}),
        ("panel.ask", ["more"], {}),
    ]
    assert "key_env='A_KEY'" in comparison.to_cell()


def test_the_cell_of_a_comparison_that_was_not_asked_yet_makes_the_panel(mock: MockServer) -> None:
    made = Comparison([Endpoint(name="a", base_url=mock.url, model="base")] * 2, blind=True, remember=False, repeat=2)
    assert calls(made.to_cell()) == [("ComparePanel", [], {"blind": True, "remember": False, "repeat": 2})]


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)), st.lists))
def test_a_literal_gives_its_value_back(value: object) -> None:
    assert ast.literal_eval(literal(value)) == value
    literal(value).encode("utf-8")


@pytest.mark.parametrize("value", [float("nan"), object(), [print]])
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="cannot be written as a cell"):
        literal(value)


def test_json_holds_what_was_asked_and_answered(comparison: Comparison, tmp_path: Path) -> None:
    data = json.loads(comparison.to_json(tmp_path / "c.json").read_text(encoding="utf-8"))
    [item] = data["rounds"]
    assert item["prompt"] == EVIL and item["options"] == {"temperature": 0.0, "stop": ["\n\n"]}
    take = item["columns"][0]["takes"][0]
    assert take["text"].startswith(EVIL[:10]) and take["metrics"]["output_tokens"] > 0 and take["error"] is None
    assert data["endpoints"][0]["key_env"] == "A_KEY" and data["tally"]["words"] == []


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def test_the_page_is_escaped_and_fetches_nothing(comparison: Comparison, tmp_path: Path) -> None:
    comparison.vote("A")
    html = comparison.to_html(tmp_path / "c.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(html)
    assert parser.tags.isdisjoint({"script", "img", "link", "iframe"}) and parser.links == []
    assert "color-scheme: light dark" in html and "default-src 'none'" in html
    assert "⟨U+202E⟩" in html and "\u202e" not in html and "\x1b" not in html
    assert "1 vote." in html and "named" in html and "Reasoning" in html


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    paths = [write(tmp_path / "c.json", text) for text in ("one", "two", "three")]
    assert [path.name for path in paths] == ["c.json", "c-2.json", "c-3.json"]
    assert [path.read_text() for path in paths] == ["one", "two", "three"]
    with pytest.raises(BadRequest, match="cannot be written"):
        write(tmp_path / "missing" / "c.json", "")


def test_no_key_is_in_any_export(comparison: Comparison, tmp_path: Path) -> None:
    comparison.to_json(tmp_path / "c.json")
    comparison.to_html(tmp_path / "c.html")
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    assert os.environ["A_KEY"] == MARKER
    for shown in (written, comparison.to_cell(), repr(vars(comparison)), repr(comparison.rounds)):
        assert MARKER not in shown
