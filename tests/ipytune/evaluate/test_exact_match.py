"""Batched greedy answers equal those given one at a time, and are scored to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipytune.data.findings import DatasetError
from ipytune.data.read import Example, Message
from ipytune.evaluate.exact import exact_match, load_examples, matches, sample, score
from ipytune.evaluate.generate import Generator
from tests.ipytune.lora import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_batched_answers_equal_single_ones(base: Path) -> None:
    generator = Generator.load(str(base))
    questions = [question("w1"), question("w2 w3 w4 w5 w6 w7"), question("w8 w9"), question("w1 w1 w1")]
    together = generator.answers(questions, max_new_tokens=12, batch_size=3)
    assert together == [generator.answers([one], max_new_tokens=12)[0] for one in questions]
    assert len(set(together)) > 1


def test_what_the_model_says_is_right(base: Path) -> None:
    generator = Generator.load(str(base))
    said = generator.answers([question("w1 w2")], max_new_tokens=6)[0]
    examples = [
        Example(1, (Message("user", "w1 w2"), Message("assistant", said))),
        Example(2, (Message("user", "w1 w2"), Message("assistant", "w49"))),
    ]
    result = score(generator, examples)
    assert result.n == 2
    assert not result.answers[1].right
    assert [mistake.expected for mistake in result.mistakes][-1] == "w49"


def test_a_sample_is_always_the_same_and_in_order(tmp_path: Path) -> None:
    examples = load_examples(tiny.write_conversations(tmp_path / "data.jsonl", 30))
    chosen = sample(examples, 7)
    assert chosen == sample(examples, 7)
    assert [example.line for example in chosen] == sorted({example.line for example in chosen})
    assert sample(examples, None) == sample(examples, 99) == examples
    with pytest.raises(ValueError, match="at least 1"):
        sample(examples, 0)


def test_a_match_ignores_white_space_at_the_ends_only() -> None:
    assert matches("#SBATCH --nodes=2", "\n#SBATCH --nodes=2 ")
    assert not matches("#SBATCH --nodes=2", "#SBATCH  --nodes=2")
    assert not matches("a\nb", "b\na")


def test_bad_input_is_refused_with_a_remedy(base: Path, tmp_path: Path) -> None:
    data = tiny.write_conversations(tmp_path / "data.jsonl", 2)
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        exact_match(data, str(base), adapter=tmp_path)
    data.write_text("{")
    with pytest.raises(DatasetError):
        exact_match(data, str(base))
