"""The one error of serving, in words a user may read, with the end of the engine's log."""

from __future__ import annotations


class ServeFailed(RuntimeError):
    """The server did not come up, or cannot do what it was asked. `log_tail` holds the last lines that it wrote."""

    def __init__(self, what: str, why: str, remedy: str, log_tail: str = "") -> None:
        super().__init__(what, why, remedy, log_tail)
        self.what, self.why, self.remedy, self.log_tail = what, why, remedy, log_tail

    def __str__(self) -> str:
        said = " ".join(part for part in (self.what, self.why, self.remedy) if part)
        return f"{said}\n\nThe end of its log:\n{self.log_tail}" if self.log_tail else said
