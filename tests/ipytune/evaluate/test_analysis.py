"""From scores to sentences: what is counted, what is compared, and what may be said."""

from __future__ import annotations

import math

import pytest

from ipytune.evaluate.analysis import comparisons, summaries
from ipytune.evaluate.scorers import Score
from ipytune.evaluate.sheet import Sheet
from ipytune.evaluate.statistics import mcnemar, wilson
from ipytune.evaluate.verdicts import result, verdict


def sheet(*models: list[float | bool | None], repeats: int = 1) -> Sheet:
    """Of one scorer; booleans are right or wrong, numbers are values, None is no score."""
    names = ["base", "tuned", "third"][: len(models)]
    made = Sheet(names, ["exact"], len(models[0]) // repeats, repeats)
    for endpoint, scores in enumerate(models):
        for at, value in enumerate(scores):
            score = None if value is None else Score.of(value) if isinstance(value, bool) else Score(value)
            made.put(endpoint, at // repeats, at % repeats, [score], 0, value is not None)
    return made


def test_a_share_gets_wilsons_interval() -> None:
    (found,) = summaries(sheet([True] * 30 + [False] * 10))
    assert (found.n, found.passed, found.mean) == (40, 30, 0.75)
    assert found.interval == wilson(30, 40)
    assert result(found) == "75.0 % (95 % CI 59.8 to 85.8), 30 of 40"


def test_values_get_a_bootstrap_and_missing_ones_do_not_count() -> None:
    (found,) = summaries(sheet([0.2, 0.4, None, 0.9]))
    assert (found.n, found.passed) == (3, None) and found.mean == pytest.approx(0.5)
    assert found.interval.low < 0.5 < found.interval.high


def test_repeats_of_a_question_are_no_more_questions() -> None:
    once = summaries(sheet([True, False] * 10))[0]
    thrice = summaries(sheet([value for value in [True, False] * 10 for _ in range(3)], repeats=3))[0]
    assert (once.n, once.interval) == (thrice.n, thrice.interval) and thrice.passed == 10
    mixed = summaries(sheet([True, False, True, True, False, False], repeats=2))[0]
    assert mixed.n == 3 and mixed.passed is None and mixed.mean == pytest.approx(0.5)


def test_a_clear_difference_is_said_with_its_evidence() -> None:
    base = [False] * 30 + [True] * 70
    tuned = [True] * 95 + [False] * 5
    (found,) = comparisons(sheet(base, tuned), [False])
    assert (found.wins, found.losses, found.n) == (30, 5, 100)
    assert found.p == mcnemar(30, 5) and found.difference == pytest.approx(0.25)
    said = verdict(found)
    assert said.startswith("exact: tuned is better than base: +25.0 points, 95 % CI ")
    assert said.endswith("p < 0.001 (McNemar exact), n = 100.")
    (turned,) = comparisons(sheet(tuned, base), [False])
    assert "tuned is worse than base: \N{MINUS SIGN}25.0 points" in verdict(turned)


def test_a_difference_that_chance_explains_is_said_with_what_would_show_one() -> None:
    (found,) = comparisons(sheet([True, False] * 20, [True, True, False, False] * 10), [False])
    said = verdict(found)
    assert "tuned and base are not distinguishable" in said and "questions would show a difference of 5 points" in said
    assert found.needed > 40


def test_few_questions_without_disagreement_promise_nothing() -> None:
    (found,) = comparisons(sheet([True] * 5, [True] * 5), [False])
    assert found.p == 1.0 and found.needed > 5
    assert found.interval.low < -0.2 and found.interval.high > 0.2


def test_only_questions_that_both_answered_are_compared() -> None:
    (found,) = comparisons(sheet([True, None, False, True], [True, True, None, False]), [False])
    assert (found.n, found.left_out) == (2, 2)
    assert "2 questions are left out" in verdict(found)
    assert comparisons(sheet([True, None], [None, True]), [False]) == ()


def test_several_models_are_corrected_by_holm() -> None:
    base, better = [False] * 12 + [True] * 8, [True] * 20
    found = comparisons(sheet(base, better, base), [False])
    assert [item.endpoint for item in found] == ["tuned", "third"]
    assert found[0].p == pytest.approx(2 * mcnemar(12, 0)) and found[1].p == 1.0
    assert "Holm for 2" in verdict(found[0])


def test_values_are_compared_in_pairs() -> None:
    base = [i / 40 for i in range(40)]
    (found,) = comparisons(sheet(base, [min(value + 0.02, 1) for value in base]), [False])
    assert found.clear and found.test == "permutation of signs"
    assert found.difference == pytest.approx(0.0198, abs=0.001)


def test_a_pairwise_judge_is_tested_against_a_coin() -> None:
    made = Sheet(["base", "tuned"], ["pairwise"], 12, 1)
    for question in range(12):
        made.put_pair(1, question, 0, 0, Score([1.0, 1.0, 1.0, 0.5][question % 4]), 0)
    (found,) = comparisons(made, [True])
    assert (found.wins, found.losses, found.ties, found.test) == (9, 0, 3, "sign test")
    assert found.p == mcnemar(9, 0) and found.difference == pytest.approx(0.375)
    assert [item.endpoint for item in summaries(made)] == ["tuned"]


def test_the_worst_rows_come_first_and_differences_are_known() -> None:
    made = sheet([True, True, None, 0.4], [True, False, True, 0.4])
    assert [made.worst(q) for q in range(4)] == [1.0, 0.0, -1.0, 0.4]
    assert [made.differs(q) for q in range(4)] == [False, True, False, False]
    assert math.isnan(made.value(0, 0, 2)) and made.passed(0, 0, 0) is True
