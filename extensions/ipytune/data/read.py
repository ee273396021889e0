"""Conversations from a data file, of any format (`formats`) and layout (`layouts`).

What is wrong is found row by row, and reading goes on: a user learns of all bad rows at once. Whether a conversation
makes sense is decided in `validate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipytune.data.findings import Finding, Unusable
from ipytune.data.formats import Record, read_records
from ipytune.data.layouts import Message, choose, to_messages
from ipytune.lora.config import DataSettings

__all__ = ["Example", "Message", "columns_of", "read", "read_jsonl"]


@dataclass(frozen=True)
class Example:
    """One conversation and the line (from 1) on which it begins; the row's number where a format has no lines."""

    line: int
    messages: tuple[Message, ...]
    given: int = 0
    """So many messages, from the first, belong to the prompt: answers among them are never learned."""

    def as_dicts(self) -> list[dict[str, str]]:
        return [message.as_dict() for message in self.messages]


def read(path: Path | str, settings: DataSettings | None = None) -> tuple[list[Example], list[Finding]]:
    """All conversations of a file and what is wrong with its other rows. Raises FileNotFoundError."""
    path, settings = Path(path), settings or DataSettings()
    records, findings = read_records(path)
    if not records:
        return [], findings
    try:
        layout = choose(columns_of(records), settings.layout, settings.columns)
    except Unusable as unusable:
        return [], [*findings, Finding(path, 0, unusable.what, unusable.remedy)]
    return _conversations(path, records, findings, layout, settings)


def read_jsonl(path: Path | str) -> tuple[list[Example], list[Finding]]:
    """The same of JSON lines that hold `messages`; a row that does not is a finding of its own."""
    path = Path(path)
    records, findings = read_records(path)
    return _conversations(path, records, findings, "messages", DataSettings())


def columns_of(records: Sequence[Record]) -> list[str]:
    """Names of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(name for record in records for name in record.values))


def _conversations(
    path: Path, records: Sequence[Record], findings: Sequence[Finding], layout: str, settings: DataSettings
) -> tuple[list[Example], list[Finding]]:
    examples: list[Example] = []
    found = list(findings)
    for record in records:
        try:
            examples.append(Example(record.line, *to_messages(record.values, layout, settings.columns)))
        except Unusable as unusable:
            found.append(Finding(path, record.line, unusable.what, unusable.remedy))
    return examples, found
