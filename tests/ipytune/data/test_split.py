"""What is held out depends on what is asked and the seed, never on where it stands; equal questions stay together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.data.findings import DatasetError
from ipytune.data.read import Example, Message
from ipytune.data.rows import save_rows
from ipytune.data.split import question, split
from ipytune.data.validate import load
from ipytune.lora.config import DataSettings, RunConfig


def example(number: int, line: int = 1) -> Example:
    return Example(line, (Message("user", f"q{number}"), Message("assistant", f"a{line}")))


def asked(examples: list[Example]) -> set[object]:
    return {question(one) for one in examples}


@given(st.lists(st.integers(0, 30), min_size=1), st.floats(0, 0.5), st.integers(0, 5), st.randoms())
def test_a_split_keeps_all_and_ignores_the_order(
    numbers: list[int], fraction: float, seed: int, random: object
) -> None:
    examples = [example(number, line) for line, number in enumerate(numbers, start=1)]
    train, held_out = split(examples, fraction, seed)
    assert sorted(train + held_out, key=lambda one: one.line) == examples
    assert not asked(train) & asked(held_out)
    assert train
    assert bool(held_out) == (fraction > 0 and len(set(numbers)) > 1)
    shuffled = list(examples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert asked(split(shuffled, fraction, seed)[1]) == asked(held_out)


def test_about_the_fraction_is_held_out_and_another_seed_holds_out_others() -> None:
    examples = [example(number) for number in range(2000)]
    sizes = [len(split(examples, 0.1, seed)[1]) for seed in (0, 1)]
    assert all(150 < size < 250 for size in sizes)
    assert asked(split(examples, 0.1, 0)[1]) != asked(split(examples, 0.1, 1)[1])


def test_rows_added_later_move_no_other() -> None:
    examples = [example(number) for number in range(100)]
    before, after = (asked(split(examples[:size], 0.2, 0)[1]) for size in (90, 100))
    assert before <= after


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"q{number}", "completion": "a"} for number in range(count)]


def test_a_configuration_holds_out_its_fraction(tmp_path: Path) -> None:
    config = RunConfig(
        train_file=save_rows(rows(50), tmp_path / "train.jsonl"), data=DataSettings(eval_fraction=0.2), seed=3
    )
    dataset = load(config)
    assert len(dataset.train) + len(dataset.held_out) == 50
    assert 2 < len(dataset.held_out) < 20


def test_one_question_cannot_be_split(tmp_path: Path) -> None:
    config = RunConfig(train_file=save_rows(rows(1), tmp_path / "a.jsonl"), data=DataSettings(eval_fraction=0.2))
    with pytest.raises(DatasetError, match="every conversation asks the same"):
        load(config)
