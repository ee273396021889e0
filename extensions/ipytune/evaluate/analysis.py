"""What the scores of an evaluation say: a mean with its interval for each model, and paired comparisons. Pure.

Models are compared on the questions that both answered and that were scored for both; the first endpoint is the
baseline. Each question counts once, however often it was repeated. Several models against one baseline are corrected
by Holm, for each scorer by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from ipytune.evaluate import statistics
from ipytune.evaluate.sheet import Sheet
from ipytune.evaluate.statistics import Interval

OF_INTEREST = 0.05  # the difference for which the needed number of questions is told: five points


@dataclass(frozen=True)
class Summary:
    """One scorer's result for one endpoint, 0 to 1. n: questions scored; passed: those, None where nothing passes."""

    endpoint: str
    scorer: str
    n: int
    mean: float
    interval: Interval
    passed: int | None


@dataclass(frozen=True)
class Comparison:
    """An endpoint against the baseline. difference: the endpoint's mean minus the baseline's, on the same questions.

    p: corrected for `against` comparisons.   needed: questions that would show a difference of OF_INTEREST with a
    power of 80 %.   test: its name.   wins, losses, ties: of questions.
    """

    endpoint: str
    baseline: str
    scorer: str
    n: int
    difference: float
    interval: Interval
    p: float
    test: str
    wins: int
    losses: int
    ties: int
    needed: int
    left_out: int
    against: int = 1

    @property
    def clear(self) -> bool:
        """Whether chance explains the difference badly enough to say that there is one."""
        return self.n > 0 and self.p < 1 - statistics.CONFIDENCE


def summaries(sheet: Sheet, seed: int = 0) -> tuple[Summary, ...]:
    """Of each endpoint by each scorer, in their order; what has no score yet is left out."""
    found = []
    for scorer, name in enumerate(sheet.scorers):
        binary = sheet.binary(scorer)
        for endpoint, who in enumerate(sheet.endpoints):
            means = [mean for q in range(sheet.questions) if not math.isnan(mean := sheet.mean_of(endpoint, scorer, q))]
            if not means:
                continue
            whole = binary and all(mean in (0.0, 1.0) for mean in means)
            right = sum(mean == 1.0 for mean in means) if whole else None
            interval = (
                statistics.wilson(right, len(means))
                if right is not None
                else statistics.bootstrap_mean(means, seed=seed)
            )
            found.append(Summary(who, name, len(means), fmean(means), interval, right))
    return tuple(found)


def comparisons(sheet: Sheet, pairwise: Sequence[bool], seed: int = 0) -> tuple[Comparison, ...]:
    """Of every other endpoint with the first. pairwise: which scorers compare with the first themselves."""
    found: list[Comparison] = []
    for scorer in range(len(sheet.scorers)):
        one = [
            comparison
            for endpoint in range(1, len(sheet.endpoints))
            if (comparison := _compared(sheet, endpoint, scorer, pairwise[scorer], seed)) is not None
        ]
        corrected = statistics.holm([comparison.p for comparison in one])
        found += [replace(item, p=p, against=len(one)) for item, p in zip(one, corrected, strict=True)]
    return tuple(found)


def _compared(sheet: Sheet, endpoint: int, scorer: int, pairwise: bool, seed: int) -> Comparison | None:
    ours, theirs = [], []
    for question in range(sheet.questions):
        mine = sheet.mean_of(endpoint, scorer, question)
        other = 0.5 if pairwise else sheet.mean_of(0, scorer, question)
        if not math.isnan(mine) and not math.isnan(other):
            ours.append(mine)
            theirs.append(other)
    n = len(ours)
    if n == 0:
        return None
    gaps = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    binary = not pairwise and sheet.binary(scorer) and all(value in (0.0, 1.0) for value in (*ours, *theirs))
    if binary:
        both = sum(mine == other == 1.0 for mine, other in zip(ours, theirs, strict=True))
        interval = statistics.paired_shares(both, wins, losses, n - both - wins - losses)
        p, test = statistics.mcnemar(wins, losses), "McNemar exact"
        # One added to each, so that few questions without any disagreement do not promise certainty.
        needed = statistics.pairs_needed(OF_INTEREST, (wins + losses + 1) / (n + 2))
    else:
        interval = statistics.bootstrap_mean(gaps, seed=seed)
        spread = stdev(gaps) if n > 1 else 0.5
        needed = statistics.differences_needed(OF_INTEREST, max(spread, 1e-3))
        if pairwise and all(gap in (-0.5, 0.0, 0.5) for gap in gaps):
            p, test = statistics.sign_test(wins, losses), "sign test"
        else:
            p, test = statistics.permutation_test(gaps, seed=seed), "permutation of signs"
    return Comparison(
        endpoint=sheet.endpoints[endpoint],
        baseline=sheet.endpoints[0],
        scorer=sheet.scorers[scorer],
        n=n,
        difference=fmean(gaps),
        interval=interval,
        p=p,
        test=test,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        needed=needed,
        left_out=sheet.questions - n,
    )
