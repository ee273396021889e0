"""What Prometheus reads from a hub: bounded labels, states as they are now, and nothing on the dashboard that is not there."""

import ast
import json
import re
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

import hybridspawner
from hybridspawner import metrics
from hybridspawner.capacity import Capacity, NodeCapacity
from hybridspawner.metrics import Outcome, start_ended
from hybridspawner.session import State
from tests.hybridspawner.sites import site

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "docs" / "administrator" / "grafana" / "oberalp.json").read_text(encoding="utf-8")
)
PACKAGE = Path(hybridspawner.__file__).parent


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Session:
    def __init__(self, counted_as: tuple[str, State] | None, *leftover_targets: str) -> None:
        self.counted_as, self.leftover_targets = counted_as, leftover_targets


@pytest.fixture(autouse=True)
def _states_of_one_test() -> Iterator[None]:
    before = metrics.STATES.targets, metrics.STATES.readings, metrics.STATES.silences
    yield
    metrics.STATES.targets, metrics.STATES.readings, metrics.STATES.silences = before
    metrics.STATES.sessions.clear()


# --- events ----------------------------------------------------------------------------------------------------------


def test_a_start_counts_once_and_its_time_is_split_into_wait_and_overhead() -> None:
    start_ended("t1", "small", Outcome.READY, seconds=62.0, queued=60.0)
    assert value("oberalp_starts_total", target="t1", profile="small", outcome="ready", reason="none") == 1
    assert value("oberalp_queue_wait_seconds_sum", target="t1") == 60
    assert value("oberalp_start_overhead_seconds_sum", target="t1") == 2


def test_a_start_that_did_not_become_ready_says_nothing_about_the_wait() -> None:
    start_ended("t2", "small", Outcome.CANCELLED, "cancelled", seconds=500.0)
    assert value("oberalp_queue_wait_seconds_count", target="t2") == 0


@given(st.text())
def test_a_reason_is_one_of_the_list_whatever_is_said(reason: str) -> None:
    start_ended("t3", "small", Outcome.FAILED, reason)
    (starts,) = metrics.STARTS.collect()
    seen = {s.labels["reason"] for s in starts.samples if s.labels["target"] == "t3"}
    assert seen <= metrics.REASONS


def test_every_reason_of_a_failure_in_this_package_is_on_the_list() -> None:
    said = {reason for path in PACKAGE.rglob("*.py") for reason in reasons(ast.parse(path.read_text("utf-8")))}
    assert len(said) > 10
    assert said <= metrics.REASONS, f"add to metrics.REASONS: {sorted(said - metrics.REASONS)}"


def reasons(tree: ast.AST) -> Iterator[str]:
    """The constant `reason` of each StartFailed(...), and of each table entry made for one (the last of its texts)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "StartFailed":
            given = [*node.args[4:5], *(k.value for k in node.keywords if k.arg == "reason")]
        elif isinstance(node, ast.Tuple) and len(node.elts) >= 3:
            texts = [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
            sentence = len(texts) == len(node.elts) and " " in texts[-2]
            given = node.elts[-1:] if sentence else []
        else:
            continue
        for constant in given:
            if isinstance(constant, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(constant.value)):
                yield str(constant.value)


@pytest.mark.parametrize(("answered", "outcome"), [(True, "ok"), (False, "error")])
def test_calls_to_a_scheduler_are_counted_with_their_time(answered: bool, outcome: str) -> None:
    metrics.scheduler_called("t4", "queue", 0.5, answered)
    assert value("oberalp_scheduler_call_seconds_sum", target="t4", verb="queue", outcome=outcome) == 0.5


def test_stops_moves_and_strays_are_counted() -> None:
    metrics.stop_ended("t5", proved=True, seconds=1.5)
    metrics.moved("t5", "t6")
    metrics.strays_ended("t5", 3)
    assert value("oberalp_stop_seconds_sum", target="t5", proved="yes") == 1.5
    assert value("oberalp_moves_total", from_target="t5", to_target="t6") == 1
    assert value("oberalp_strays_ended_total", target="t5") == 3


# --- states ----------------------------------------------------------------------------------------------------------


def test_sessions_are_counted_by_what_they_are_now_and_forgotten_with_their_spawner() -> None:
    one, two, none = Session(("alps", State.QUEUED)), Session(("alps", State.QUEUED), "pods", "pods"), Session(None)
    for session in (one, two, none):
        metrics.track(session)
    assert value("oberalp_sessions", target="alps", state="queued") == 2
    assert value("oberalp_leftovers", target="pods") == 2
    one.counted_as = ("alps", State.RUNNING)
    assert value("oberalp_sessions", target="alps", state="queued") == 1
    assert value("oberalp_sessions", target="alps", state="running") == 1
    del two, session
    assert value("oberalp_sessions", target="alps", state="queued") == 0
    assert value("oberalp_leftovers", target="pods") == 0


def test_the_series_of_a_site_exist_before_anything_happens() -> None:
    metrics.declare(site())
    none_yet = {"outcome": "ready", "reason": "none"}
    assert REGISTRY.get_sample_value("oberalp_sessions", {"target": "pods", "state": "running"}) == 0
    assert REGISTRY.get_sample_value("oberalp_starts_total", {"target": "pods", "profile": "gpu", **none_yet}) == 0
    assert REGISTRY.get_sample_value("oberalp_starts_total", {"target": "here", "profile": "gpu", **none_yet}) is None


def test_readings_have_an_age_and_no_gpus_when_the_target_does_not_answer() -> None:
    node = NodeCapacity("n1", 8, 8, 64, 64, {"gh200": 4}, {"gh200": 1})
    now = time.monotonic()
    metrics.readings_from(
        lambda: {"alps": Capacity("alps", (node,), now - 30), "pods": Capacity("pods", (), now, "no answer in 8 s")},
        lambda: {"alps": None, "pods": 8.5},
    )
    assert value("oberalp_silent_seconds", target="alps") == 0 and value("oberalp_silent_seconds", target="pods") == 8.5
    assert 30 <= value("oberalp_capacity_age_seconds", target="alps") < 40
    assert value("oberalp_capacity_gpus", target="alps", share="free") == 1
    assert value("oberalp_capacity_gpus", target="alps", share="total") == 4
    assert value("oberalp_capacity_fault", target="pods") == 1
    assert REGISTRY.get_sample_value("oberalp_capacity_gpus", {"target": "pods", "share": "free"}) is None


# --- the dashboard ---------------------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_every_metric_and_label_of_the_dashboard_exists() -> None:
    labels: dict[str, set[str]] = {}
    for collector in (metrics.STARTS, metrics.QUEUE_WAIT, metrics.OVERHEAD, metrics.STOPS, metrics.CALLS):
        (family,) = collector.describe()
        labels[family.name] = set(collector._labelnames)
    for collector in (metrics.MOVES, metrics.STRAYS, metrics.LAPSES):
        (family,) = collector.describe()
        labels[family.name] = set(collector._labelnames)
    metrics.readings_from(lambda: {"t": Capacity("t", (), time.monotonic())}, lambda: {"t": None})
    metrics.track(session := Session(("t", State.RUNNING), "t"))
    for gauges in metrics.STATES.collect():
        labels[gauges.name] = {name for sample in gauges.samples for name in sample.labels}
    del session
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    for expression in asked:
        for name, matchers in re.findall(r"(oberalp_\w+)(?:\{([^}]*)\})?", expression):
            family = re.sub(r"_(total|bucket|count|sum)$", "", name)
            assert family in labels, f"no metric {name}: {expression}"
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers)) <= labels[family], expression


def test_every_metric_is_on_the_dashboard_and_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "administrator" / "metrics.md").read_text(encoding="utf-8")
    on_dashboard = json.dumps(DASHBOARD)
    names = {family.name for family in REGISTRY.collect() if family.name.startswith("oberalp_")}
    assert len(names) >= 12
    for name in names:
        assert name in on_dashboard, name
        assert name in guide, name


def test_the_dashboard_is_one_that_grafana_can_read() -> None:
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "target": "query"}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"])))
        assert used <= {*variables, "__rate_interval"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
