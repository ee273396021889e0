"""Whether conversations can be trained on: decided before any model is loaded, since mask errors are silent later.

An error prevents training: order of roles, empty content, no answer to learn, a held-out conversation that is also
trained on. A warning is reported: a conversation that occurs twice. White space is not a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipytune.data.findings import DatasetError, Finding, in_order
from ipytune.data.read import Example, Message, read
from ipytune.data.split import Question, question, split
from ipytune.lora.config import DataSettings, RunConfig


@dataclass(frozen=True)
class Dataset:
    """Conversations to train on, conversations held out, and warnings."""

    train: list[Example]
    held_out: list[Example]
    warnings: list[Finding]


def load(source: RunConfig | Path | str, eval_file: Path | str | None = None) -> Dataset:
    """Reads and validates the files of a configuration, or a file to train on and one that is held out.

    With `data.eval_fraction` and no eval_file, part of the train_file is held out. Raises DatasetError with every error
    found, FileNotFoundError.
    """
    if isinstance(source, RunConfig):
        return _load(source.train_file, source.eval_file, source.data, source.seed)
    return _load(Path(source), None if eval_file is None else Path(eval_file), DataSettings(), seed=0)


def _load(train_file: Path, eval_file: Path | None, settings: DataSettings, seed: int) -> Dataset:
    train, findings = read(train_file, settings)
    findings += check(train_file, train, empty_is_wrong=not findings)
    held_out: list[Example] = []
    if eval_file is not None:
        held_out, unreadable = read(eval_file, settings)
        findings += unreadable + check(eval_file, held_out, empty_is_wrong=not unreadable)
        findings += overlap(train_file, train, eval_file, held_out)
    elif settings.eval_fraction:
        train, held_out = split(train, settings.eval_fraction, seed)
        if not held_out and not any(not finding.warning for finding in findings):
            findings.append(
                Finding(
                    train_file,
                    0,
                    "every conversation asks the same, so none can be held out",
                    "Set data.eval_fraction to 0, or name an eval_file",
                )
            )
    errors = [finding for finding in findings if not finding.warning]
    if errors:
        raise DatasetError(in_order(errors))
    return Dataset(train, held_out, [finding for finding in findings if finding.warning])


def check(file: Path, examples: Sequence[Example], empty_is_wrong: bool = True) -> list[Finding]:
    """What is wrong with the conversations of one file; empty_is_wrong is false when it is known why there are none."""
    if not examples:
        lacking = Finding(file, 0, "no conversation in the file", "Write at least one conversation, one a line")
        return [lacking] if empty_is_wrong else []
    findings: list[Finding] = []
    first_line: dict[tuple[Question, str], int] = {}
    for example in examples:
        if wrong := _what_is_wrong(example):
            findings.append(Finding(file, example.line, *wrong))
            continue
        said = (question(example), " ".join(example.messages[-1].content.split()))
        if (twin := first_line.setdefault(said, example.line)) != example.line:
            findings.append(
                Finding(file, example.line, f"same conversation as line {twin}", "Remove one of them", warning=True)
            )
    return findings


def overlap(train_file: Path, train: Iterable[Example], eval_file: Path, held_out: Iterable[Example]) -> list[Finding]:
    """Held-out conversations whose questions are also trained on: they would measure memory, not learning."""
    trained = {question(example): example.line for example in train}
    return [
        Finding(
            eval_file,
            example.line,
            f"the same question is in the training data ({train_file.name}:{line})",
            "Remove it from one of the two files",
        )
        for example in held_out
        if (line := trained.get(question(example))) is not None
    ]


def _what_is_wrong(example: Example) -> tuple[str, str] | None:
    """The first thing wrong with a conversation, and its remedy."""
    messages = example.messages
    if not messages:
        return "no messages", "Write a user message and an assistant message"
    for number, message in enumerate(messages, start=1):
        if not message.content.strip():
            return f"message {number} ({message.role}) is empty", "Fill it in, or remove the line"
    if not any(message.role == "assistant" for message in messages):
        return "no assistant message, so nothing to learn", "End the conversation with the answer wanted"
    return _turns_out_of_order(messages)


def _turns_out_of_order(messages: Sequence[Message]) -> tuple[str, str] | None:
    first = 1 if messages[0].role == "system" else 0
    turns = messages[first:]
    for i, message in enumerate(turns):
        expected, number = ("assistant" if i % 2 else "user"), first + i + 1
        if message.role == expected:
            continue
        if message.role == "system":
            return f"message {number} is a second system message", "Keep one, as the first message"
        return (
            f"message {number} is from {message.role}, expected {expected}",
            "Let user and assistant take turns, beginning with the user (after an optional system message)",
        )
    if turns[-1].role != "assistant":
        return "the last message is from the user, and has no answer", "Add the answer, or remove the question"
    return None
