"""The #SBATCH lines of a job script as options, for APIs that do not read them: slurmrestd takes a job as JSON only."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from ...duration import parse_duration

_SHORT = {
    "A": "account",
    "C": "constraint",
    "J": "job-name",
    "N": "nodes",
    "c": "cpus-per-task",
    "e": "error",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
}
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


class DirectiveError(ValueError):
    """A line that cannot be turned into a field; the message names it."""


@dataclass(frozen=True)
class Directive:
    """One option of sbatch by its long name; `value` is "" for a flag."""

    name: str
    value: str


def directives(script: str) -> list[Directive]:
    """Every option in the #SBATCH lines before the first command, as sbatch reads them."""
    found = []
    for line in script.splitlines():
        if line.startswith("#SBATCH"):
            found += _options(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return found


def after_directives(script: str, lines: str) -> str:
    """The script with shell `lines` put before its first command."""
    head = script.splitlines(keepends=True)
    at = 0
    for number, line in enumerate(head):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        at = number + 1
    return "".join([*head[:at], lines.rstrip("\n") + "\n", *head[at:]])


def _options(line: str) -> list[Directive]:
    try:
        words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
    except ValueError as error:
        raise DirectiveError(f"{line!r}: {error}") from None
    found: list[Directive] = []
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        elif word.startswith("-") and word[1:2] in _SHORT:
            name, equals, value = _SHORT[word[1]], word[2:], word[2:].lstrip("=")
        else:
            raise DirectiveError(f"{line!r}: {word!r} is not an option that is known here")
        if not equals and words and not words[0].startswith("-"):
            value = words.pop(0)
        found.append(Directive(name, value))
    return found


def minutes(text: str) -> int:
    """sbatch's --time in whole minutes, rounded up: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`."""
    try:
        if text.isdecimal():
            return int(text)
        days, dash, rest = text.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash:
            hours, mins, seconds = [*parts, 0, 0][:3]
            return -(-((int(days) * 24 + hours) * 3600 + mins * 60 + seconds) // 60)
        if len(parts) == 2:
            return parts[0] + (parts[1] > 0)
        return -(-int(parse_duration(text)) // 60)
    except ValueError:
        raise DirectiveError(f"--time={text}: not a time that sbatch knows") from None


def megabytes(text: str) -> int:
    """sbatch's --mem in MiB."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "M")
    if not number.isdecimal() or unit not in _UNITS:
        raise DirectiveError(f"--mem={text}: a number with K, M, G or T is expected")
    return max(1, round(int(number) * _UNITS[unit])) if int(number) else 0
