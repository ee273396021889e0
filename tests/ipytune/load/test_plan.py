"""A plan that cannot be measured is refused before anything is sent, with the field's name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ipytune.endpoints import BadRequest
from ipytune.load import Objectives, Plan, planned
from ipytune.load.plan import Load


def test_steps_are_measured_in_the_order_given() -> None:
    assert Plan(concurrency=(4, 1)).loads() == (Load("closed", 4), Load("closed", 1))
    assert Plan(rates=(0.5,)).loads() == (Load("open", 0.5),)


def test_a_plan_without_an_end_lasts_thirty_seconds_a_step() -> None:
    assert Plan(concurrency=(1,)).duration == 30
    assert Plan(concurrency=(1,), requests=5).duration is None


def test_a_sweep_doubles_until_the_server_is_saturated() -> None:
    plan = Plan.sweep("concurrency", last=16, requests=3)
    assert plan.concurrency == (1, 2, 4, 8, 16)
    assert plan.until_saturated
    assert Plan.sweep("rates", first=0.5, last=2).rates == (0.5, 1.0, 2.0)


def test_as_many_requests_warm_up_as_there_are_users() -> None:
    assert Plan(concurrency=(8,)).warmup_of(Load("closed", 8)) == 8
    assert Plan(concurrency=(8,), warmup=0).warmup_of(Load("closed", 8)) == 0


def test_answers_are_pinned_to_their_length_unless_told_otherwise() -> None:
    assert Plan(concurrency=(1,)).request_fields(7) == {"max_tokens": 7, "min_tokens": 7, "ignore_eos": True}
    assert Plan(concurrency=(1,), pin_output=False).request_fields(7) == {"max_tokens": 7}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "exactly one of concurrency, rates and trace"),
        ({"concurrency": (1,), "rates": (1.0,)}, "exactly one"),
        ({"concurrency": (0,)}, "concurrency.0"),
        ({"rates": (-1.0,)}, "rates.0"),
        ({"concurrency": (1,), "duration": 0}, "duration"),
        ({"concurrency": (1,), "output_tokens": 0}, "output_tokens"),
        ({"concurrency": (1,), "good_share": 0.9}, "good_share needs objectives"),
        ({"concurrency": (1,), "objectives": {"ttfx": 1}}, "objectives.ttfx"),
        ({"concurrency": (1,), "options": {"max_tokens": 1}}, "options may not hold max_tokens"),
        ({"concurrency": (1,), "unknown": 1}, "unknown"),
        ({"trace": "t.jsonl", "prompts": "p.txt"}, "trace or prompts"),
        ({"trace": "t.jsonl", "ramp": 1.0}, "until_saturated and ramp"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        planned(**fields)
    assert named in str(caught.value)


def test_a_refused_plan_does_not_repeat_what_was_typed() -> None:
    with pytest.raises(ValidationError) as caught:
        Plan(concurrency=(1,), api="marker-key-1")  # type: ignore[arg-type]
    assert "marker-key-1" not in str(caught.value)


def test_a_plan_survives_the_way_to_its_workers() -> None:
    plan = Plan(rates=(1.5,), objectives={"ttft": 0.5}, options={"temperature": 0}, processes=2)
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    assert plan.objectives == Objectives(ttft=0.5)
