"""Exact match: the share of held-out questions whose greedy answer is the expected one, to the letter.

Works on the JSON lines that training reads; the last answer of each conversation is the expected one. Importing this
module does not import torch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ipytune import openmp
from ipytune.data.findings import DatasetError
from ipytune.data.read import Example, read
from ipytune.data.validate import check
from ipytune.lora.config import DataSettings

if TYPE_CHECKING:
    from ipytune.evaluate.generate import Generator

T = TypeVar("T")
MESSAGES = DataSettings(layout="messages")
SPARE_TOKENS = 16  # beyond the longest expected answer: a longer one is wrong already


@dataclass(frozen=True)
class Answer:
    """One question, what was expected, what the model said."""

    question: str
    expected: str
    given: str

    @property
    def right(self) -> bool:
        return matches(self.expected, self.given)


@dataclass(frozen=True)
class ExactMatch:
    """The result of one model on one file."""

    model: str
    answers: tuple[Answer, ...]
    seconds: float

    @property
    def n(self) -> int:
        return len(self.answers)

    @property
    def right(self) -> int:
        return sum(answer.right for answer in self.answers)

    @property
    def share(self) -> float:
        """Right answers of all, 0 to 1."""
        return self.right / self.n

    @property
    def mistakes(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.right]

    def __str__(self) -> str:
        return f"{self.model}: {self.right} of {self.n} right ({self.share:.1%}), in {self.seconds:.1f} s"


def exact_match(
    data: Path | str | Sequence[Example],
    model: str = "smollm2-135m-instruct",
    adapter: Path | str | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
    layout: DataSettings = MESSAGES,
) -> ExactMatch:
    """Scores a base model, or one with an adapter (`run.adapter`), on a file of conversations, or on conversations
    (`data.validate.load(config).held_out`: what a run held out of its own file).

    layout says how to read the file (`run.config.data`). limit takes a sample of them, always the same one.
    seconds counts answering, not loading.
    Raises DatasetError, ModelNotFound, FileNotFoundError.

        before = exact_match(config.eval_file, config.model, limit=24)
        after = exact_match(config.eval_file, config.model, adapter=run.adapter, limit=24)
    """
    given = load_examples(data, layout) if isinstance(data, (str, Path)) else data
    examples = sample(given, limit)
    openmp.spin_briefly()

    from ipytune.evaluate.generate import Generator  # imports torch

    return score(Generator.load(model, adapter), examples, batch_size, on_progress)


def score(
    generator: Generator,
    examples: Sequence[Example],
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> ExactMatch:
    """Scores a loaded model."""
    expected = [example.messages[-1].content for example in examples]
    longest = max(len(ids) for ids in generator.tokenizer(expected, add_special_tokens=False)["input_ids"])
    started = time.monotonic()
    given = generator.answers(
        [example.as_dicts()[:-1] for example in examples], longest + SPARE_TOKENS, batch_size, on_progress
    )
    answers = (
        Answer(example.messages[-2].content, wanted, got)
        for example, wanted, got in zip(examples, expected, given, strict=True)
    )
    return ExactMatch(generator.name, tuple(answers), time.monotonic() - started)


def load_examples(data: Path | str, layout: DataSettings = MESSAGES) -> list[Example]:
    """The conversations of a file; raises DatasetError for what training would refuse too."""
    path = Path(data)
    examples, findings = read(path, layout)
    findings += [finding for finding in check(path, examples) if not finding.warning]
    if findings:
        raise DatasetError(findings)
    return examples


def sample(examples: Sequence[T], limit: int | None) -> list[T]:
    """`limit` of the examples, spread over the file, in its order; all of them for None."""
    if limit is None or limit >= len(examples):
        return list(examples)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}.")
    chosen = sorted(random.Random(0).sample(range(len(examples)), limit))
    return [examples[i] for i in chosen]


def matches(expected: str, given: str) -> bool:
    """Equal but for white space at the ends, which no reader sees."""
    return expected.strip() == given.strip()
