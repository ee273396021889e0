"""A comparison shows what differs and nothing that does not, and draws every curve that can be drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ipytune.cli_runs import app
from ipytune.lora.config import ConfigError, LoraSettings
from ipytune.runs.compare import LIMIT, Comparison, compare, curve_of, differences, labels
from ipytune.runs.compare_views import losses_svg
from ipytune.runs.library import runs
from tests.ipytune.runs.written import run_in


@pytest.fixture
def two(tmp_path: Path) -> Comparison:
    run_in(tmp_path / "a", steps=4)
    run_in(tmp_path / "b", steps=6, lora=LoraSettings(rank=32), learning_rate=1e-3)
    return compare([tmp_path / "a", tmp_path / "b"])


def test_only_the_settings_that_differ_are_told(two: Comparison) -> None:
    assert two.differences == {"lora.rank": (16, 32), "learning_rate": (2e-4, 1e-3)}
    assert "learning_rate" in two.text() and "warmup_steps" not in two.text()
    assert two.best is two.runs[1]


def test_in_a_kernel_the_text_is_a_text_and_not_an_output(two: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "learning_rate" in two.text()


def test_runs_with_the_same_settings_say_so(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    run_in(tmp_path / "b")
    same = compare(runs(tmp_path))
    assert same.differences == {}
    assert "The settings are the same" in same.text() and "The settings are the same" in same.html()


def test_no_best_run_where_the_held_out_conversations_differ(tmp_path: Path) -> None:
    run_in(tmp_path / "a", eval_sha256="0" * 64)
    run_in(tmp_path / "b", eval_sha256="1" * 64)
    assert compare(runs(tmp_path)).best is None


@pytest.mark.parametrize(("by", "first", "held_out"), [("step", 1, 2), ("tokens", 100, 200), ("time", 0.5, 1.0)])
def test_curves_are_over_steps_tokens_or_time(tmp_path: Path, by: str, first: float, held_out: float) -> None:
    run_in(tmp_path / "a", steps=4)
    run_in(tmp_path / "b")
    curve = compare([tmp_path / "a", tmp_path / "b"], by=by).runs[0].curve  # type: ignore[arg-type]
    assert (curve.training[0].at, curve.training[0].loss) == (first, 4.0)
    assert [(mark.at, mark.loss) for mark in curve.held_out] == [(held_out, 2.5), (2 * held_out, 1.25)]


def test_steps_that_were_done_again_appear_once() -> None:
    events = [{"kind": "metric", "step": step, "loss": 2.0} for step in (1, 2, 3)]
    events += [{"kind": "evaluation", "step": 3, "eval_loss": 9.0}, {"kind": "resumed", "step": 2}]
    events += [{"kind": "metric", "step": 3, "loss": 2.0}, {"kind": "evaluation", "step": 3, "eval_loss": 1.0}]
    curve = curve_of(events, "step")
    assert [mark.at for mark in curve.training] == [1, 2, 3]
    assert [(mark.at, mark.loss) for mark in curve.held_out] == [(3, 1.0)]


def test_an_evaluation_between_two_records_stands_at_the_next_one() -> None:
    events = [{"kind": "metric", "step": step, "loss": 1.0, "tokens": 10 * step} for step in (5, 10)]
    events += [{"kind": "evaluation", "step": step, "eval_loss": 1.0} for step in (7, 12)]
    assert [mark.at for mark in curve_of(events, "tokens").held_out] == [100, 100]


def test_names_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    assert labels([Path("/x/a/run"), Path("/y/b/run"), Path("/y/c/run")]) == ["a/run", "b/run", "c/run"]


def test_a_comparison_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = run_in(tmp_path / "a").path
    with pytest.raises(ValueError, match="at least two runs; 1 given"):
        compare([path])
    with pytest.raises(ValueError, match="named twice"):
        compare([path, path])
    with pytest.raises(ValueError, match="'epoch' is no axis. Choose one of: step, tokens, time"):
        compare([path, path], by="epoch")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="holds no run"):
        compare([path, tmp_path / "absent"])
    run_in(tmp_path / "b").config.write_text("rank: 3\n")
    with pytest.raises(ConfigError, match="cannot be compared; leave it out"):
        compare([path, tmp_path / "b"])


def test_the_page_is_closed_escaped_and_has_no_script(tmp_path: Path) -> None:
    run_in(tmp_path / "<script>alert(1)")
    run_in(tmp_path / 'b"&', model="<img src=x onerror=alert(1)>")
    page = compare(runs(tmp_path)).html()
    tree = ElementTree.fromstring(page)
    assert not [element for element in tree.iter() if element.tag in {"script", "img", "link", "iframe"}]
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<script>alert(1)" in "".join(tree.itertext())


numbers = st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf])
kinds = st.sampled_from(["metric", "evaluation", "resumed", "phase", "sample"])
events = st.lists(
    st.fixed_dictionaries(
        {"kind": kinds, "step": st.integers(0, 50)},
        optional={"loss": numbers | st.none(), "eval_loss": numbers | st.none(), "tokens": st.integers(0, 10**9)},
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("pair")
    run_in(folder / "a")
    run_in(folder / "b", seed=2)
    return compare(runs(folder))


@settings(deadline=None, max_examples=30)
@given(found=events, by=st.sampled_from(["step", "tokens", "time"]))
def test_any_record_can_be_read_and_drawn(pair: Comparison, found: list[dict[str, Any]], by: Any) -> None:
    curve = curve_of(found, by)
    assert len(curve.training) <= LIMIT
    drawn = replace(pair, runs=(replace(pair.runs[0], curve=curve), pair.runs[1]), by=by)
    picture = losses_svg(drawn)
    assert ElementTree.fromstring(picture).tag == "svg"
    assert "nan" not in picture and "inf" not in picture
    assert drawn.text()


def test_settings_that_one_run_does_not_have_are_none() -> None:
    assert differences([{"a": 1}, {"a": 1, "b": 2}]) == {"b": (None, 2)}


def test_the_command_compares_and_writes_a_page(tmp_path: Path) -> None:
    run_in(tmp_path / "a")
    run_in(tmp_path / "b", seed=7)
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "seed" in result.output and "█" in result.output
    assert "<svg" in (tmp_path / "page.html").read_text()
    result = CliRunner().invoke(app, [*arguments[:3], "--by", "epoch"])
    assert result.exit_code == 1 and "no axis" in result.output
