"""A person's own file keeps their comments, is private, and tells what is wrong without repeating it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.endpoints import BadRequest, Endpoint, user_file
from ipytune.endpoints.user_file import location, read, with_added, without
from tests.ipytune.endpoints.places import Places, places

__all__ = ["places"]  # the fixture

MINE = Endpoint(name="mine", base_url="http://h:1/v1", model="small")
WRITTEN = """\
# my endpoints

endpoints:
  # the site's
  - name: site
    base_url: https://inference.example/v1   # ends in v1
    model: big
    key_env: SITE_KEY

  # a friend's
  - {name: friend, base_url: "http://f:1", model: m}
# the end
"""


def names(text: str) -> list[str]:
    return [item["name"] for item in yaml.safe_load(text)["endpoints"] or []]


def test_what_is_added_and_removed_leaves_comments_where_they_are() -> None:
    added = with_added(WRITTEN, MINE, Path())
    assert names(added) == ["site", "friend", "mine"]
    for comment in ("# my endpoints", "# the site's", "# ends in v1", "# a friend's", "# the end"):
        assert comment in added
    assert without(added, "mine", Path()) == WRITTEN
    rest = without(WRITTEN, "site", Path())
    assert names(rest) == ["friend"] and "# a friend's" in rest and "SITE_KEY" not in rest
    assert names(without(rest, "friend", Path())) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "endpoints:\n",
        "endpoints: []\n",
        "[]",
        "- name: a\n  base_url: http://h\n  model: m\n",
        "- name: a\n  base_url: http://h\n  model: m",
        "endpoints:\n- name: a\n  base_url: http://h\n  model: |\n    m\n",
        "endpoints: [{name: a, base_url: 'http://h', model: m}]\nother: 1\n",
        "endpoints:\n  -\n    name: a\n    base_url: http://h\n    model: m\n\n\n",
    ],
)
def test_any_way_of_writing_the_list_can_be_added_to_and_taken_from(tmp_path: Path, text: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(text)
    before = [endpoint.name for endpoint in read(file)[0]]
    file.write_text(with_added(text, MINE, file))
    assert [endpoint.name for endpoint in read(file)[0]] == [*before, "mine"] and read(file)[0][-1] == MINE
    file.write_text(without(file.read_text(), "mine", file))
    assert [endpoint.name for endpoint in read(file)[0]] == before and read(file)[1] == []


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).map(str.strip).filter(bool)


@settings(deadline=None)
@given(st.lists(st.tuples(words, words), max_size=4, unique_by=lambda pair: pair[0]))
def test_whatever_endpoints_are_called_they_come_and_go(pairs: list[tuple[str, str]]) -> None:
    text = WRITTEN
    for name, model in pairs:
        text = with_added(text, Endpoint(name=f"+{name}", base_url="http://h", model=model), Path())
    held = [(item["name"], item["model"]) for item in yaml.safe_load(text)["endpoints"]]
    assert held == [("site", "big"), ("friend", "m"), *((f"+{name}", model) for name, model in pairs)]
    for name, _ in pairs:
        text = without(text, f"+{name}", Path())
    assert names(text) == ["site", "friend"]


def test_the_file_is_private_and_replaced_whole(places: Places) -> None:
    path = user_file.add(MINE)
    assert path == places.file == location()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["endpoints.yaml"]
    assert "Keys are not written here" in path.read_text()
    assert read(path) == ([MINE], [])


def test_a_link_to_the_file_stays_a_link(places: Places, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "endpoints.yaml"
    real.parent.mkdir()
    real.write_text(WRITTEN)
    places.file.parent.mkdir(parents=True)
    places.file.symlink_to(real)
    user_file.add(MINE)
    assert places.file.is_symlink() and names(real.read_text())[-1] == "mine"


def test_a_name_is_taken_once_unless_it_is_to_be_replaced(places: Places) -> None:
    user_file.add(MINE)
    with pytest.raises(BadRequest, match="--replace"):
        user_file.add(MINE)
    other = MINE.model_copy(update={"model": "other"})
    user_file.add(other, replace=True)
    assert read(places.file) == ([other], [])
    user_file.remove("mine")
    with pytest.raises(BadRequest, match="It has: none"):
        user_file.remove("mine")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [SECRET", "not YAML (line 1)"),
        ("endpoints: SECRET", "no list"),
        ("- name: a\n  base_url: http://h\n  model: m\n  api_key: SECRET\n", "holds no key"),
        ("- name: a\n  base_url: http://h\n  model: m\n  key_env: sk-SECRET\n", "NAME of an environment variable"),
        ("- name: a\n  base_url: http://u:SECRET@h\n  model: m\n", "no user, password or query"),
        ("- SECRET\n", "no fields"),
        ("- 1: SECRET\n", "no fields"),
        ("- name: 2026-99-99\n", "cannot be read"),
        ("- {name: a, base_url: 'http://h', model: m}\n- {name: a, base_url: 'http://h', model: m}\n", "before it"),
        ("\x00SECRET", "not YAML"),
    ],
)
def test_a_fault_is_told_with_its_place_and_never_with_what_may_be_a_key(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(text)
    _, problems = read(file)
    assert len(problems) == 1 and told in problems[0] and str(file) in problems[0] and "SECRET" not in problems[0]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    endpoints, problems = read(file)
    assert all(isinstance(endpoint, Endpoint) for endpoint in endpoints) and isinstance(problems, list)


def test_a_broken_file_is_not_overwritten(places: Places) -> None:
    places.user("a: [")
    with pytest.raises(BadRequest, match="not YAML"):
        user_file.add(MINE)
    assert places.file.read_text() == "a: ["


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IPYTUNE_ENDPOINTS_FILE", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert location() == tmp_path / ".config/ipytune/endpoints.yaml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert location() == tmp_path / "xdg/ipytune/endpoints.yaml"
