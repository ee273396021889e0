"""The documentation without its build (`make docs` is that): links, contents, docstrings, help of every command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from oberalp_docs.pages import contents, documents, executed, parts, without_folders  # noqa: E402
from oberalp_docs.reference import as_rst  # noqa: E402

README = (ROOT / "docs/README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "spawners", ROOT / "extensions", ROOT / "benchmarks")
    for path in (folder.rglob("*.md") if folder.name == "docs" else folder.glob("*.md"))
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|``.*?``|`[^`\n]*`", re.DOTALL)


def links(page: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for link in links(page):
        if not link.startswith(("http:", "https:", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{link} in {page}"


def test_addresses_outside_are_whole() -> None:
    """They cannot be asked here; what can be seen is that they are addresses of the public web, by TLS."""
    outside = {link for page in PAGES for link in links(page) if link.startswith("http")}
    assert [link for link in outside if not re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[\w./#~%?=&+-]*)?", link)] == []


def test_every_page_stands_in_the_contents() -> None:
    known = [str(page.relative_to(ROOT).with_suffix("")) for page in PAGES]
    known += [str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / "notebooks").glob("*.ipynb")]
    listed = {name for _, entry in parts(README) for name in documents(entry, "docs", known)}
    assert set(known) - listed - {"docs/README"} == set()


def test_contents_follow_the_lists() -> None:
    readme = "- Users: [one](user/one.md#top), [two](user/two.md)\n- [Decisions](decisions/): why\n"
    made = contents(readme, "docs", ["docs/decisions/0002-b", "docs/decisions/0001-a", "docs/user/one"])
    assert re.findall(r":caption: (\w+)|^/(.+)$", made, re.MULTILINE) == [
        ("Users", ""),
        ("", "docs/user/one"),
        ("", "docs/user/two"),
        ("Decisions", ""),
        ("", "docs/decisions/0001-a"),
        ("", "docs/decisions/0002-b"),
    ]


def test_a_notebook_is_shown_executed_if_that_run_was_of_what_lies_here(tmp_path: Path) -> None:
    def write(folder: str, *sources: str) -> Path:
        tags = {"injected": ["injected-parameters"]}
        cells = [{"source": source, "metadata": {"tags": tags.get(source, [])}} for source in sources]
        path = tmp_path / folder / "01-a.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": cells}))
        return path

    write("notebooks", "a", "b")
    assert executed("notebooks/01-a", tmp_path) is None
    made = write("var/notebooks", "a", "injected", "b")
    assert executed("notebooks/01-a", tmp_path) == made
    write("notebooks", "a", "b changed")
    assert executed("notebooks/01-a", tmp_path) is None


def test_a_link_to_a_folder_leads_to_its_first_page() -> None:
    known = ["docs/decisions/0002-b", "docs/decisions/0001-a"]
    assert without_folders("see [why](decisions/).", "docs", known) == "see [why](/docs/decisions/0001-a.md)."
    assert without_folders("see [code](src/).", "docs", known) == "see [code](src/)."


@given(st.text(alphabet=st.sampled_from("ab `*_|\\\n-:>"), max_size=60))
def test_any_docstring_is_shown_without_a_complaint(text: str) -> None:
    from docutils.core import publish_doctree

    made = publish_doctree(
        "\n".join(as_rst(text)), settings_overrides={"report_level": 1, "halt_level": 5, "warning_stream": False}
    )
    assert not list(made.findall(lambda node: node.tagname == "system_message"))


def commands(command: object, path: str) -> Iterator[tuple[str, object]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def test_every_command_and_option_says_what_it_is_for() -> None:
    from ipytune.cli import app

    for path, command in commands(typer.main.get_command(app), "ipytune"):
        assert command.help, path  # type: ignore[attr-defined]
        for parameter in command.params:  # type: ignore[attr-defined]
            hidden = getattr(parameter, "hidden", False)
            assert hidden or getattr(parameter, "help", None), f"{path}: {parameter.name}"
