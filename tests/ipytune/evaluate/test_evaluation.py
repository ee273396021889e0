"""Evaluations of a mock server with known answers: what is asked, what is kept, what is never asked twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipytune.data.findings import DatasetError
from ipytune.endpoints import Endpoint
from ipytune.evaluate import Evaluation, Job, Judge, PairwiseJudge, evaluate
from ipytune.evaluate.ledger import InUse
from ipytune.evaluate.plan import plan
from ipytune.evaluate.progress import Progress
from ipytune.mock import Behaviour, MockServer, start_mock
from tests.browser.lab import until

KEY = "marker-SECRET-4711"
ROWS = [{"prompt": f"q{i}", "expected": f"a{i}"} for i in range(20)]


def says(body: Mapping[str, Any]) -> str:
    """tuned is always right, base on even questions, other on none; the judge grades by what it reads."""
    asked = str(body["messages"][-1]["content"])
    if body["model"] == "judge":
        if "better" in str(body["messages"][0]["content"]):
            first, second = asked.index("The first answer:"), asked.index("The second answer:")
            right = asked.find(">\na", first)
            which = "tie" if right < 0 else "first" if right < second else "second"
            return json.dumps({"reason": "it begins with a", "better": which})
        if "q3" in asked:
            return "I would rather not say."
        return json.dumps({"reason": "so it is", "grade": 5 if ">\na" in asked.split("The answer:")[1] else 1})
    right = body["model"] == "tuned" or (body["model"] == "base" and int(asked[1:]) % 2 == 0)
    return f"{'a' if right else 'b'}{asked[1:]}"


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with start_mock(Behaviour(text=says, models=("base", "tuned", "other", "judge")), process=False) as server:
        yield server


@pytest.fixture
def base(mock: MockServer) -> Endpoint:
    return mock.endpoint("base", "base")


@pytest.fixture
def tuned(mock: MockServer) -> Endpoint:
    return mock.endpoint("tuned", "tuned")


def test_every_endpoint_is_asked_every_question_and_scored(
    mock: MockServer, base: Endpoint, tuned: Endpoint, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    found = evaluate(ROWS, [base, tuned], ["exact", "contains:a"], directory=tmp_path, on_progress=seen.append)
    assert found.state == "completed" and mock.stats().requests == 40
    assert found.summary("base").mean == 0.5 and found.summary("tuned").mean == 1.0
    assert (found.summary("base").passed, found.summary("base", "contains:a").n) == (10, 20)
    (by_exact, _) = found.comparisons
    assert (by_exact.endpoint, by_exact.wins, by_exact.losses) == ("tuned", 10, 0)
    assert found.verdicts[0].startswith("exact: tuned is better than base: +50.0 points")
    last = seen[-1]
    assert (last.done, last.total, last.failed, last.remaining_seconds) == (40, 40, 0, 0.0)
    assert last.output_tokens == mock.stats().tokens and last.prompt_tokens > 0
    with pytest.raises(KeyError, match="no score"):
        found.summary("base", "judge")


def test_nothing_is_asked_twice_and_only_what_is_new_is_asked(
    mock: MockServer, base: Endpoint, tuned: Endpoint, tmp_path: Path
) -> None:
    evaluate(ROWS, base, "exact", directory=tmp_path, limit=8)
    assert mock.stats().requests == 8
    evaluate(ROWS, base, "exact", directory=tmp_path)
    assert mock.stats().requests == 20
    found = evaluate(ROWS, [base, tuned], ["exact", "similarity"], directory=tmp_path)
    assert mock.stats().requests == 40  # another scorer asks nobody
    assert found.columns[0].known == 20 and found.columns[0].output_tokens == 0
    evaluate(ROWS, base, "exact", directory=tmp_path, max_tokens=9)
    assert mock.stats().requests == 60  # other options, other answers
    assert evaluate([*ROWS, *ROWS], base, "exact", directory=tmp_path).summary("base").n == 40
    assert mock.stats().requests == 60


def test_rows_that_ask_the_same_ask_once(mock: MockServer, base: Endpoint, tmp_path: Path) -> None:
    evaluate([ROWS[0]] * 12, base, "exact", directory=tmp_path, concurrency=12)
    assert mock.stats().requests == 1


def test_a_cache_is_shared_by_evaluations_but_not_for_single_sampled_answers(
    mock: MockServer, base: Endpoint, tmp_path: Path
) -> None:
    for place in ("one", "two"):
        evaluate(ROWS, base, "exact", directory=tmp_path / place, cache=tmp_path / "cache")
    assert mock.stats().requests == 20
    for place in ("three", "four"):
        evaluate(ROWS, base, "exact", directory=tmp_path / place, cache=tmp_path / "cache", temperature=0.7)
    assert mock.stats().requests == 60
    for place in ("five", "six"):
        evaluate(ROWS, base, "exact", directory=tmp_path / place, cache=tmp_path / "cache", temperature=0.7, repeats=2)
    assert mock.stats().requests == 60 + 40


def test_repeats_are_answers_of_their_own_and_one_question(mock: MockServer, base: Endpoint, tmp_path: Path) -> None:
    found = evaluate(ROWS, base, "exact", directory=tmp_path, repeats=3, temperature=0.5)
    assert mock.stats().requests == 60 and found.summary("base").n == 20
    assert [cell.repeat for cell in found.row(0).cells] == [0, 1, 2]


def test_a_wrong_model_stops_its_column_after_one_request_and_no_other(
    mock: MockServer, base: Endpoint, tmp_path: Path
) -> None:
    absent = mock.endpoint("absent", "no-such-model")
    found = evaluate(ROWS, [base, absent], "exact", directory=tmp_path, concurrency=10)
    assert mock.stats().requests == 21 and found.summary("base").n == 20
    problem = found.columns[1].problem
    assert problem is not None and problem.kind == "ModelNotFound" and "no-such-model" in problem.what
    assert any("absent was given up" in sentence for sentence in found.verdicts)
    assert found.state == "completed"


def test_a_missing_key_and_a_refused_one_stop_the_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    monkeypatch.setenv("WRONG_KEY", "wrong")
    with start_mock(Behaviour(key=KEY), process=False) as mock:
        endpoints = [
            mock.endpoint("none", key_env="ABSENT_KEY"),
            mock.endpoint("wrong", key_env="WRONG_KEY"),
            mock.endpoint("right"),
        ]
        found = evaluate(ROWS, endpoints, "exact", directory=tmp_path)
        kinds = [column.problem and column.problem.kind for column in found.columns]
        assert kinds == ["KeyMissing", "Unauthorized", None]
        assert found.columns[2].asked == 20 and mock.stats().requests <= 21


def test_all_endpoints_failing_is_a_failed_evaluation(tmp_path: Path) -> None:
    gone = Endpoint(name="gone", base_url="http://127.0.0.1:9/v1", model="m")
    found = evaluate(ROWS, gone, "exact", directory=tmp_path)
    assert found.state == "failed" and found.columns[0].done < 5
    problem = found.columns[0].problem
    assert problem is not None and problem.kind == "Unreachable"


def test_failed_rows_are_kept_and_asked_again_by_the_next_run_only(tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()
    asked: list[str] = []

    def sometimes(body: Mapping[str, Any]) -> str:
        asked.append(str(body["messages"][-1]["content"]))
        return says({**body, "model": "tuned"})

    with start_mock(Behaviour(text=sometimes, error_rate=0.4, error_status=500, seed=3), process=False) as mock:
        first = evaluate(ROWS, mock.endpoint(), "exact", directory=tmp_path)
        failed = first.columns[0].failed
        assert 0 < failed < 20 and first.summary("mock").n == 20 - failed
        assert next(first.rows("failures")).cells[0].problem is not None
        assert any(f"{failed} questions have no answer" in note for note in first.notes)
        mock.behave(error_rate=0.0)
        mock.reset()
        second = evaluate(ROWS, mock.endpoint(), "exact", directory=tmp_path)
        assert mock.stats().requests == failed
        assert second.summary("mock").n == 20 and not second.notes


def test_bad_data_is_refused_before_anything_is_asked(mock: MockServer, base: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no expected answer"):
        evaluate([*ROWS, {"prompt": "q"}], base, "exact", directory=tmp_path)
    assert mock.stats().requests == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"concurrency": 0}, "concurrency is a whole number"),
        ({"repeats": True}, "repeats is a whole number"),
        ({"max_tokens": 0.5}, "max_tokens is a whole number"),
        ({"temperature": -1}, "temperature is a number"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"stop": object()}, "go into the request as JSON"),
    ],
)
def test_bad_settings_are_refused(base: Endpoint, tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate(ROWS, base, "exact", directory=tmp_path, **settings)


def test_endpoints_need_names_of_their_own(base: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Two endpoints are called 'base'"):
        evaluate(ROWS, [base, base], "exact", directory=tmp_path)
    with pytest.raises(ValueError, match="no endpoint"):
        evaluate(ROWS, [], "exact", directory=tmp_path)
    with pytest.raises(ValueError, match="str is no Endpoint"):
        evaluate(ROWS, ["base"], "exact", directory=tmp_path)  # type: ignore[list-item]
    judge = PairwiseJudge(base)
    with pytest.raises(ValueError, match="at least two endpoints"):
        evaluate(ROWS, base, judge, directory=tmp_path)


def test_rows_may_name_their_own_scorer(base: Endpoint, tmp_path: Path) -> None:
    rows = [{**ROWS[1], "scorer": "contains:b"}, {**ROWS[2], "scorer": None}, {"prompt": "q3", "scorer": "regex:^b"}]
    found = evaluate(rows, base, directory=tmp_path)
    assert found.scorers == ("row",) and found.summary("base").mean == 1.0


def test_a_scorer_that_fails_is_an_error_and_no_score(base: Endpoint, tmp_path: Path) -> None:
    def odd(given: str, expected: str | None) -> bool:
        if given == "b1":
            raise KeyError("one")
        return True

    found = evaluate(ROWS, base, odd, directory=tmp_path)
    assert found.summary("base").n == 19 and found.columns[0].unscored == 1
    worst = next(found.rows("failures"))
    assert worst.question.text == "q1" and worst.cells[0].scores["odd"] == "odd: KeyError: 'one'"


def test_a_judge_grades_is_recorded_and_asked_once(mock: MockServer, base: Endpoint, tmp_path: Path) -> None:
    judge = Judge(mock.endpoint("judge", "judge"))
    found = evaluate(ROWS, base, ["exact", judge], directory=tmp_path)
    assert mock.stats().requests == 40
    assert found.summary("base", "judge").n == 19  # the verdict on q3 cannot be read
    assert found.summary("base", "judge").passed == 10
    assert found.columns[0].unscored == 1 and found.info["judged"] == 20 and found.info["judge_tokens"] > 0
    assert '"purpose": "judge"' in (tmp_path / "answers.jsonl").read_text()
    again = evaluate(ROWS, base, ["exact", judge], directory=tmp_path)
    assert mock.stats().requests == 40 and again.info["judged"] == 0


def test_a_judge_that_cannot_be_asked_leaves_the_other_scores(mock: MockServer, base: Endpoint, tmp_path: Path) -> None:
    judge = Judge(mock.endpoint("judge", "no-such-judge"))
    found = evaluate(ROWS, base, ["exact", judge], directory=tmp_path)
    assert found.summary("base").n == 20 and found.columns[0].unscored == 20
    assert mock.stats().requests == 21
    assert "cannot be asked" in str(found.row(0).cells[0].scores["judge"])


def test_a_pairwise_judge_compares_with_the_first_endpoint(
    mock: MockServer, base: Endpoint, tuned: Endpoint, tmp_path: Path
) -> None:
    judge = PairwiseJudge(mock.endpoint("judge", "judge"))
    found = evaluate(ROWS, [base, tuned], ["exact", judge], directory=tmp_path)
    assert mock.stats().requests == 40 + 2 * 10  # equal answers cost nothing
    by_judge = found.comparisons[1]
    assert (by_judge.scorer, by_judge.wins, by_judge.losses, by_judge.ties) == ("pairwise", 10, 0, 10)
    assert found.row(1).cells[1].scores["pairwise"] is not None
    again = Evaluation.open(tmp_path)
    assert again.comparisons == found.comparisons


def test_an_evaluation_is_opened_again_as_it_was(base: Endpoint, tuned: Endpoint, tmp_path: Path) -> None:
    found = evaluate(ROWS, [base, tuned], ["exact", "similarity"], directory=tmp_path)
    again = Evaluation.open(tmp_path)
    assert (again.summaries, again.comparisons, again.verdicts) == (found.summaries, found.comparisons, found.verdicts)
    assert str(again) == str(found) and list(again.rows()) == list(found.rows())
    with pytest.raises(FileNotFoundError, match="holds no evaluation"):
        Evaluation.open(tmp_path / "absent")
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        Evaluation.open(tmp_path)


def test_a_scores_file_that_a_killed_run_left_is_read_as_far_as_it_goes(base: Endpoint, tmp_path: Path) -> None:
    evaluate(ROWS, base, "exact", directory=tmp_path)
    scores = tmp_path / "scores.jsonl"
    scores.write_bytes(scores.read_bytes()[:-30])
    assert Evaluation.open(tmp_path).summary("base").n == 19


def test_stop_keeps_what_came_and_going_on_asks_the_rest(tmp_path: Path) -> None:
    with start_mock(Behaviour(echo=True, ttft=0.02), process=False) as mock:
        rows = [{"prompt": f"q{i}", "expected": f"q{i}"} for i in range(200)]
        job = Job(plan(rows, mock.endpoint(), "exact", directory=tmp_path, concurrency=4))
        until(lambda: job.progress().done >= 12, "the first answers", 20)
        with pytest.raises(InUse):
            Job(plan(rows, mock.endpoint(), "exact", directory=tmp_path))
        job.stop()
        assert job.wait(20)
        stopped = job.evaluation()
        assert stopped.state == "stopped" and "was stopped" in stopped.notes[0]
        done = stopped.columns[0].done
        assert 12 <= done < 200 and mock.stats().cancelled == 0  # those being written came to their end
        assert job.progress().phase == "stopped"
        found = evaluate(rows, mock.endpoint(), "exact", directory=tmp_path)
        assert found.summary("mock").n == 200 and mock.stats().requests == 200


def test_stopping_at_once_closes_the_connections(tmp_path: Path) -> None:
    with start_mock(Behaviour(hang_after=1), process=False) as mock:
        job = Job(plan(ROWS, mock.endpoint(), "exact", directory=tmp_path, concurrency=3))
        until(lambda: mock.stats().in_flight == 3, "three answers", 20)
        job.stop(0)
        assert job.wait(20) and job.progress().phase == "stopped"
        until(lambda: mock.stats().cancelled == 3, "the server's notice", 20)
        job.stop()  # harmless
        assert Evaluation.open(tmp_path).state == "stopped"


def test_a_job_stopped_as_it_begins_ends(base: Endpoint, tmp_path: Path) -> None:
    job = Job(plan(ROWS, base, "exact", directory=tmp_path))
    job.stop(0)
    assert job.wait(20) and job.done


def test_no_key_is_in_anything_that_is_written_or_shown(tmp_path: Path) -> None:
    with start_mock(Behaviour(key=KEY, echo=True, error_rate=0.3, repeat_key=True, seed=1), process=False) as mock:
        found = evaluate(ROWS, mock.endpoint(), ["exact"], directory=tmp_path)
        assert 0 < found.columns[0].failed < 20
        for form in (found.to_html, found.to_csv, found.to_json):
            form(tmp_path / f"report-{form.__name__}")
        written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        shown = f"{found!r}{found}{found._repr_html_()}{found.info}{found.columns}"
        assert KEY.encode() not in written and KEY not in shown
