"""What is wrong with a data set: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one line; an error prevents training, a warning is only reported."""

    file: Path
    line: int
    what: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}. {self.remedy}."


class DatasetError(ValueError):
    """A data set that cannot be trained on; holds all findings, and shows the first of them."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        more = f"\n… and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
        super().__init__(
            f"{len(findings)} {'line' if len(findings) == 1 else 'lines'} of the data set cannot be used:\n"
            + "\n".join(map(str, findings[:SHOWN]))
            + more
        )
        self.findings = tuple(findings)
