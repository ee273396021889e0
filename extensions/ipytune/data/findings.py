"""What is wrong with a data set: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one line; an error prevents training, a warning is only reported.

    line counts from 1, and counts rows where a format has no lines (Parquet, arrays in JSON); 0 means the whole file.
    """

    file: Path
    line: int
    what: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{place}: {self.what}. {self.remedy}."


class Unusable(ValueError):
    """Why one row holds no conversation, and the remedy; becomes a finding where file and line are known."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}.")
        self.what, self.remedy = what, remedy


class DatasetError(ValueError):
    """A data set that cannot be trained on; holds all findings, and shows the first of them."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        more = f"\n… and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
        super().__init__(
            f"{_counted(findings)} of the data set cannot be used:\n" + "\n".join(map(str, findings[:SHOWN])) + more
        )
        self.findings = tuple(findings)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """By file and line; what concerns a whole file comes before its lines."""
    return sorted(findings, key=lambda finding: (str(finding.file), finding.line))


def _counted(findings: Sequence[Finding]) -> str:
    """`3 lines`, or `1 file` where no line is at fault."""
    places = {(finding.file, finding.line) for finding in findings}
    noun = "line" if any(line for _, line in places) else "file"
    return f"{len(places)} {noun}{'' if len(places) == 1 else 's'}"
