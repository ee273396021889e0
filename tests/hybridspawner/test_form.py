"""The spawn page's form and its live offers, without a browser: choices within rights, everything escaped, stale options."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from hybridspawner.capacity import Access, Capacity
from hybridspawner.form import hardware, preselected, render_form, runtimes
from hybridspawner.form.offers import as_json, choices
from hybridspawner.placement import place
from hybridspawner.request import validate
from tests.hybridspawner.sites import document, site

SITE = site()
ALPS, PODS = SITE.target("alps"), SITE.target("pods")


def page(
    at: Any, stored: Any = None, groups: frozenset[str] = frozenset(), last_end: dict[str, Any] | None = None
) -> str:
    spawner = SimpleNamespace(
        deployment=SimpleNamespace(site=at),
        user_groups=groups,
        orm_spawner=SimpleNamespace(user_options=stored),
        hub=SimpleNamespace(base_url="/hub/"),
        last_end=last_end,
    )
    return render_form(spawner)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (Access(), {"account": ["g1", "g2"], "partition": ["normal", "debug"]}),
        (Access(accounts=("g2", "g9"), partitions=("debug",)), {"account": ["g2"], "partition": ["debug"]}),
        (Access(accounts=(), reservations=("course",), qos=("normal",)), {"account": [], "partition": ["normal", "debug"], "reservation": ["course"], "qos": ["normal"]}),
    ],
)  # fmt: skip
def test_choices_are_rights_within_what_the_site_lists(access: Access, expected: dict[str, list[str]]) -> None:
    assert choices(ALPS, access) == expected


def test_only_slurm_has_choices() -> None:
    assert choices(PODS, Access(accounts=("g1",))) == {}


def test_offers_are_json_with_choices_of_each_target() -> None:
    request = validate({"profile": "gpu"}, SITE)
    capacities = {
        "pods": Capacity("pods", error="it does not answer"),
        "alps": Capacity("alps", access=Access(qos=("normal",))),
    }
    answer = as_json(place(request, SITE, capacities), SITE, capacities)
    by_name = {o["target"]: o for o in json.loads(json.dumps(answer))["offers"]}
    assert "does not answer" in by_name["pods"]["words"] and by_name["pods"]["fit"] == "unknown"
    assert by_name["alps"]["choices"]["qos"] == ["normal"] and by_name["alps"]["fit"] == "never"


@pytest.mark.parametrize(
    "stored",
    [None, {}, {"profile": "gone"}, {"runtime": "9"}, {"x": 1}, [], "text", {"target": "pods", "account": "g1"}],
)
def test_stale_stored_options_never_break_the_page(stored: Any) -> None:
    assert 'name="profile" value="small" checked' in page(SITE, stored)
    assert preselected(stored, SITE, set()).profile == "small"


def test_the_last_choice_is_kept() -> None:
    html = page(SITE, {"profile": "gpu", "target": "alps", "account": "g2"})
    assert 'name="profile" value="gpu" checked' in html and 'value="alps" checked' in html and 'value="g2"' in html
    assert re.search(r'<details class="hybrid-advanced" open>', html)


def test_everything_that_the_site_says_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'"
    changed = document()
    for part in ("targets", "environments", "profiles"):
        changed[part] = [{**item, "title": evil, "description": evil} for item in changed[part]]
    html = page(site(**changed))
    assert "<script>alert" not in html and html.count("&lt;script&gt;alert") >= 6


def test_a_notebook_that_was_typed_is_escaped() -> None:
    html = page(SITE, {"notebook": '"><script>alert(1)</script>.ipynb'})
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


def test_the_end_of_the_last_session_is_told_and_its_log_escaped() -> None:
    html = page(
        SITE, last_end={"what": "Your last session has ended.", "why": "<b>", "remedy": "", "evidence": "<script>"}
    )
    assert "Your last session has ended." in html and "&lt;script&gt;" in html and "<b>" not in html


def test_targets_stand_in_the_order_of_preference() -> None:
    html = page(site(policy={"preference": ["here", "alps"]}))
    assert re.findall(r'data-target="(\w+)"', html) == ["here", "alps", "pods"]


def test_nothing_to_offer_is_said() -> None:
    closed = [{**p, "groups": ["staff"]} for p in document()["profiles"]]
    assert "Nothing is offered to you here" in page(site(profiles=closed))


def test_hardware_and_run_times_in_words() -> None:
    assert hardware(SITE.profile("gpu")) == "2 GH200 GPUs, 4 cores, 8 GB"
    assert runtimes(SITE.profile("gpu"), "00:20:00") == [
        "00:15:00",
        "00:20:00",
        "00:30:00",
        "01:00:00",
        "02:00:00",
        "04:00:00",
    ]


def test_the_end_of_the_last_session_is_told_and_escaped() -> None:
    told = {
        "what": "It has ended.",
        "why": "<b>Its time</b> was over.",
        "remedy": "Ask for more.",
        "evidence": "<script>",
    }
    html = page(site(), last_end=told)
    assert "It has ended." in html and "&lt;b&gt;Its time" in html and "<script>" not in html.split("<script src")[0]
