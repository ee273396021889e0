"""When memory runs out in a step: smaller rows first, then recomputation, and the user is told.

Smaller rows change nothing in the result (each conversation attends to itself only) and cost little. Recomputing
activations costs half as much work again, so every other layer comes before all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

RECOMPUTED = ("none", "half", "all")


@dataclass(frozen=True)
class Footprint:
    """How a step is cut: tokens of a row, and how many layers recompute their activations."""

    row_tokens: int
    recompute: str = "none"

    def smaller(self, longest: int, may_recompute: bool) -> Footprint | None:
        """The next thing to try after running out of memory with conversations of up to `longest` tokens; None when
        nothing is left."""
        if self.row_tokens > longest:
            return replace(self, row_tokens=max(longest, self.row_tokens // 2))
        if may_recompute and self.recompute != "all":
            return replace(self, recompute=RECOMPUTED[RECOMPUTED.index(self.recompute) + 1])
        return None

    def words(self) -> str:
        """
        >>> Footprint(512).words()
        'rows of 512 tokens'
        >>> Footprint(256, "half").words()
        'rows of 256 tokens, recomputing half of the layers'
        """
        how = {"none": "", "half": ", recomputing half of the layers", "all": ", recomputing all layers"}[
            self.recompute
        ]
        return f"rows of {self.row_tokens} tokens{how}"


class OutOfMemory(RuntimeError):
    """Even the smallest step does not fit; the message says what would."""

    def __init__(self, footprint: Footprint) -> None:
        super().__init__(
            f"Out of memory, even with {footprint.words()}. Lower max_length, choose a smaller model or rank, set "
            f"quantise: nf4 (on a GPU), or ask for a session with more memory."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU, or of this process: torch's allocator on the CPU raises a plain RuntimeError."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error))
    )
