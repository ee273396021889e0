"""Whether conversations can be trained on: decided before any model is loaded, since mask errors are silent later.

An error prevents training: order of roles, empty content, no answer to learn, a held-out conversation that is also
trained on. A warning is reported: a conversation that occurs twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipytune.data.findings import DatasetError, Finding
from ipytune.data.read import Example, Message, read_jsonl


@dataclass(frozen=True)
class Dataset:
    """Conversations to train on, conversations held out, and warnings."""

    train: list[Example]
    held_out: list[Example]
    warnings: list[Finding]


def load(train_file: Path | str, eval_file: Path | str | None = None) -> Dataset:
    """Reads and validates both files; raises DatasetError with every error found, FileNotFoundError."""
    train_file = Path(train_file)
    train, findings = read_jsonl(train_file)
    findings += check(train_file, train)
    held_out: list[Example] = []
    if eval_file is not None:
        eval_file = Path(eval_file)
        held_out, unreadable = read_jsonl(eval_file)
        findings += unreadable + check(eval_file, held_out) + overlap(train_file, train, eval_file, held_out)
    errors = [finding for finding in findings if not finding.warning]
    if errors:
        raise DatasetError(sorted(errors, key=lambda finding: (str(finding.file), finding.line)))
    return Dataset(train, held_out, [finding for finding in findings if finding.warning])


def check(file: Path, examples: Sequence[Example]) -> list[Finding]:
    """What is wrong with the conversations of one file."""
    if not examples:
        return [Finding(file, 1, "no conversation in the file", "Write at least one conversation, one a line")]
    findings: list[Finding] = []
    first_line: dict[tuple[Message, ...], int] = {}
    for example in examples:
        if wrong := _what_is_wrong(example.messages):
            findings.append(Finding(file, example.line, *wrong))
        if example.messages in first_line:
            twin = first_line[example.messages]
            findings.append(
                Finding(file, example.line, f"same conversation as line {twin}", "Remove one of them", warning=True)
            )
        first_line.setdefault(example.messages, example.line)
    return findings


def overlap(train_file: Path, train: Iterable[Example], eval_file: Path, held_out: Iterable[Example]) -> list[Finding]:
    """Held-out conversations whose questions are also trained on: they would measure memory, not learning."""
    trained = {_question(example): example.line for example in train}
    return [
        Finding(
            eval_file,
            example.line,
            f"the same question is in the training data ({train_file.name}:{trained[_question(example)]})",
            "Remove it from one of the two files",
        )
        for example in held_out
        if _question(example) in trained
    ]


def _question(example: Example) -> tuple[Message, ...]:
    """All but the last answer: what the model is given."""
    return example.messages[:-1]


def _what_is_wrong(messages: Sequence[Message]) -> tuple[str, str] | None:
    """The first thing wrong with a conversation, and its remedy."""
    if not messages:
        return "no messages", "Write a user message and an assistant message"
    for number, message in enumerate(messages, start=1):
        if not message.content.strip():
            return f"message {number} ({message.role}) is empty", "Fill it in, or remove the line"
    if not any(message.role == "assistant" for message in messages):
        return "no assistant message, so nothing to learn", "End the conversation with the answer wanted"
    turns = messages[1:] if messages[0].role == "system" else messages
    for number, message in enumerate(turns, start=len(messages) - len(turns) + 1):
        expected = "user" if (number - (len(messages) - len(turns))) % 2 else "assistant"
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
