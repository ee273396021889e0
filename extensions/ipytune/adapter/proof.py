"""What a proof says, and when it passes: pure comparison of what two models said. `verify` asks them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ipytune.runs.directory import replace_text


@dataclass(frozen=True)
class Tolerance:
    """What rounding alone may do. logits: greatest difference, in standard deviations of the logits.
    perplexity: relative change."""

    logits: float
    perplexity: float


# A weight is rounded to 24, 11 and 8 bits in float32, float16 and bfloat16; q8_0 keeps 8 bits of the largest of each 32
# weights. On SmolLM2-135M (30 layers) that comes to 0.08 for bfloat16 and 0.26 for q8_0, in the greatest of a million
# logits; allowed is two to three times that. A wrong scale or unturned heads differ by one and more.
TOLERANCES = {
    "float32": Tolerance(1e-3, 1e-4),
    "float16": Tolerance(0.03, 0.003),
    "bfloat16": Tolerance(0.25, 0.03),
    "q8_0": Tolerance(0.6, 0.05),
}
LEFT = 0.5  # of what the adapter changed, at least; less, and rounding has swallowed what was learned


class Form(BaseModel):
    """One way in which the tuned model was written, against base and adapter."""

    model_config = ConfigDict(frozen=True)

    form: Literal["merged", "gguf"]
    path: str
    dtype: str
    logit_difference: float
    """The greatest, absolute."""
    logit_difference_relative: float
    """The greatest, in standard deviations of the logits."""
    same_answers: int
    answers_changed_at_a_tie: int
    """Greedy answers that part where the two best tokens were closer than rounding."""
    perplexity: float
    perplexity_change: float
    """Relative to the adapter's."""
    kept: float | None
    """Share of the adapter's own effect on the logits that is left after rounding; None for one without effect."""
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


class Proof(BaseModel):
    """The result; `passed` when every form is the adapter up to rounding."""

    model_config = ConfigDict(frozen=True)

    adapter: str
    base: str
    questions: int
    tokens: int
    """Answer tokens at which the logits were compared."""
    perplexity: float
    """Of base and adapter, on the held-out answers of the run where it has some, else on its own answers."""
    forms: tuple[Form, ...]
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        return all(form.passed for form in self.forms)

    def write(self, path: Path) -> None:
        document = self.model_dump(mode="json") | {"passed": self.passed}
        replace_text(path, json.dumps(document, indent=1) + "\n")

    def __str__(self) -> str:
        lines = [f"{self.questions} questions, {self.tokens} answer tokens; perplexity {self.perplexity:.4f}"]
        for form in self.forms:
            tie = f" ({form.answers_changed_at_a_tie} more part at a tie)" if form.answers_changed_at_a_tie else ""
            lines.append(
                f"{form.form} ({form.dtype}): {'alike' if form.passed else 'NOT ALIKE'}; logits differ by at most "
                f"{form.logit_difference:.2g} ({form.logit_difference_relative:.2g} of their spread), "
                f"{form.same_answers} of {self.questions} answers the same{tie}, "
                f"perplexity {form.perplexity_change:+.2%}"
                + (f", {form.kept:.1%} of the adapter's effect kept" if form.kept is not None else "")
            )
            lines += [f"  {finding}" for finding in form.findings]
        return "\n".join(lines)


@dataclass(frozen=True)
class Reading:
    """What one model says of the questions: logits [tokens, V] along the reference's answers, and the perplexity."""

    logits: Tensor
    perplexity: float


def compare(
    reading: Reading, reference: Reading, answers: Sequence[Sequence[int]], effect: float, dtype: str
) -> dict[str, Any]:
    """The numbers of a Form and what is wrong with them. effect: root mean square of what the adapter changes."""
    allowed = TOLERANCES[dtype]
    difference = (reading.logits - reference.logits).abs()
    greatest, spread = float(difference.max()), float(reference.logits.std(dim=-1).mean())
    relative = greatest / spread
    same = ties = start = 0
    for answer in answers:
        rows = slice(start, start := start + len(answer))
        verdict = _answered(reading.logits[rows], reference.logits[rows], answer, allowed.logits * spread)
        same, ties = same + (verdict == "same"), ties + (verdict == "tie")
    change = reading.perplexity / reference.perplexity - 1
    kept = 1 - rms(difference) / effect if effect > 1e-6 * spread else None
    findings = []
    if not relative <= allowed.logits:
        findings.append(f"logits differ by {relative:.2g} of their spread; {dtype} explains {allowed.logits:g}")
    if different := len(answers) - same - ties:
        findings.append(f"{different} greedy answers differ where there was no tie")
    if not abs(change) <= allowed.perplexity:
        findings.append(f"perplexity changes by {change:+.2%}; {dtype} explains {allowed.perplexity:.2%}")
    if kept is not None and kept < LEFT:
        findings.append(
            f"only {max(0.0, kept):.0%} of what the adapter changed is left: {dtype} is too coarse for so small a "
            f"change (write float32), or the adapter is not in there"
        )
    return {
        "logit_difference": greatest,
        "logit_difference_relative": relative,
        "same_answers": same,
        "answers_changed_at_a_tie": ties,
        "perplexity": reading.perplexity,
        "perplexity_change": change,
        "kept": kept,
        "findings": findings,
    }


def _answered(
    logits: Tensor, reference: Tensor, answer: Sequence[int], rounding: float
) -> Literal["same", "tie", "other"]:
    """Along the reference's own answer, greedy decoding takes the same way as long as each best token is the same."""
    chosen = logits.argmax(dim=-1).tolist()
    for row, (ours, theirs) in enumerate(zip(chosen, answer, strict=True)):
        if ours != theirs:
            margin = float(reference[row, theirs] - reference[row, ours])
            return "tie" if margin <= 2 * rounding else "other"
    return "same"


def rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())
