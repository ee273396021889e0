"""Votes on answers, and what they add up to. Pure.

Counted is who was preferred, with an interval; no Elo, which orders by chance when each pair has a handful of votes.
Ties say nothing about which of two is better, so the sign test leaves them out; how many there are is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ipytune.evaluate.statistics import sign_test, wilson

Other = Literal["tie", "bad"]


@dataclass(frozen=True)
class Vote:
    """The number of the endpoint whose answer is the best, "tie", or "bad" for all. blind: given without the names."""

    choice: int | Other
    blind: bool


@dataclass(frozen=True)
class Standing:
    """One endpoint, preferred in `wins` of the votes that prefer one. low, high: the share's 95 % Wilson interval."""

    name: str
    wins: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Tally:
    """p_value: that of the sign test, for two endpoints with at least one decided vote; else None.

    seen: votes given with the names in view, where others were given blind; they are not counted.
    """

    standings: tuple[Standing, ...]
    decided: int
    ties: int
    bad: int
    seen: int
    p_value: float | None

    @property
    def votes(self) -> int:
        return self.decided + self.ties + self.bad


def tally(votes: Sequence[Vote], names: Sequence[str]) -> Tally:
    """What the votes say. As soon as one was given blind, only those that were are counted."""
    blind = [vote for vote in votes if vote.blind]
    counted = blind or list(votes)
    wins = [sum(vote.choice == place for vote in counted) for place in range(len(names))]
    decided = sum(wins)
    standings = []
    for name, won in zip(names, wins, strict=True):
        low, high = wilson(won, decided) if decided else (0.0, 1.0)
        standings.append(Standing(name, won, won / decided if decided else 0.0, low, high))
    return Tally(
        standings=tuple(standings),
        decided=decided,
        ties=sum(vote.choice == "tie" for vote in counted),
        bad=sum(vote.choice == "bad" for vote in counted),
        seen=len(votes) - len(counted),
        p_value=sign_test(wins[0], wins[1]) if len(names) == 2 and decided else None,
    )


def sentences(found: Tally) -> list[str]:
    """The tally in words. Empty without votes."""
    if not found.votes:
        return []
    rest = [f"{count} {word}" for count, word in ((found.ties, "tied"), (found.bad, "where none was good")) if count]
    said = [f"{found.votes} vote{'' if found.votes == 1 else 's'}{': ' + ', '.join(rest) if rest else ''}."]
    for standing in found.standings if found.decided else ():
        said.append(
            f"{standing.name}: preferred in {standing.wins} of {found.decided} "
            f"({standing.share:.0%}; 95 % interval {standing.low:.0%} to {standing.high:.0%})."
        )
    if found.p_value is not None:
        shown = f"p = {found.p_value:.2g}" if found.p_value >= 0.001 else "p < 0.001"
        first, second = found.standings
        if found.p_value >= 0.05:
            said.append(f"Which is preferred cannot be told yet (sign test, {shown}).")
        else:
            ahead = max(first, second, key=lambda standing: standing.wins)
            said.append(f"{ahead.name} is preferred (sign test, {shown}).")
    if found.seen:
        said.append(f"Not counted: {found.seen} given with the names in view.")
    return said
