"""Whether a run fits, and the smallest change that would make it fit. Pure.

A run fits when it needs at most 1/1.15 of what is free, the accuracy of the estimate; it is tight when it needs at most
what is free. The changes are tried in the order of what they cost the user, each on top of those before, and those that
turn out not to be needed are dropped again:

    row_tokens down to max_length    nothing in the result, little speed
    gradient_checkpointing           half as much work again
    dtype: bfloat16                  precision of the frozen base; on a CPU without AMX also speed
    quantise: nf4 (GPU)              speed, a little precision
    max_length down                  long conversations
    parallel: fsdp over n GPUs       n GPUs
    another profile                  waiting
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ipytune.memory.available import Available, Limit
from ipytune.memory.estimate import Estimate, Plan, estimate_of

ROOM = 1.15
SHORTEST = 128  # tokens; a max_length below that is another task
ROUND_LENGTH, ROUND_ROW = 8, 64


class Verdict(str, Enum):
    FITS = "fits"
    TIGHT = "tight"
    DOES_NOT_FIT = "does not fit"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Need:
    """Bytes needed of one kind of memory, and what there is of it."""

    kind: str
    """`GPU` or `host`."""
    bytes: int
    limit: Limit

    @property
    def verdict(self) -> Verdict:
        if self.bytes * ROOM <= self.limit.free:
            return Verdict.FITS
        return Verdict.TIGHT if self.bytes <= self.limit.free else Verdict.DOES_NOT_FIT


@dataclass(frozen=True)
class Change:
    """One setting to change, and what that costs."""

    setting: str
    was: object
    now: object
    cost: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.now} (now {self.was}; {self.cost})"


@dataclass(frozen=True)
class Remedy:
    """Changes after which the run fits, and its estimate then; without changes only a larger profile helps, and `ask`
    says how large, in bytes by kind of memory."""

    changes: tuple[Change, ...]
    estimate: Estimate
    ask: tuple[tuple[str, int], ...] = ()

    @property
    def settings(self) -> dict[str, object]:
        """What to write into the configuration."""
        return {change.setting: change.now for change in self.changes if change.setting != "GPUs"}


@dataclass(frozen=True)
class Fit:
    """An estimate against what there is. `needs` holds the tightest first."""

    estimate: Estimate
    needs: tuple[Need, ...]
    remedy: Remedy | None
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return self.needs[0].verdict

    @property
    def device_need(self) -> Need:
        """Of the memory that the parts are in."""
        kind = "GPU" if self.estimate.plan.device == "cuda" else "host"
        return next(need for need in self.needs if need.kind == kind)

    def words(self) -> str:
        """The verdict with its numbers, then what to do about it, then what else is to be known; a line each."""
        need = self.needs[0]
        lines = [
            f"{str(self.verdict).capitalize()}: about {size(need.bytes)} of {need.kind} memory needed, "
            f"{size(need.limit.free)} free ({need.limit.name})."
        ]
        if self.remedy is not None and self.remedy.changes:
            lines += [f"Set {change}" for change in self.remedy.changes]
            after = needed(self.remedy.estimate)
            lines.append(f"Then it needs about {size(after[need.kind])} of {need.kind} memory.")
        elif self.remedy is not None:
            asked = " and ".join(f"{size(count)} of {kind} memory" for kind, count in self.remedy.ask)
            lines.append(f"No setting makes it fit. Start a session with at least {asked}, or take a smaller model.")
        return "\n".join([*lines, *self.notes])


def advice(estimate: Estimate, available: Available) -> Fit:
    """Compares, and looks for a remedy when it does not fit with room. Raises ValueError when the run wants more GPUs
    than there are."""
    plan = estimate.plan
    if plan.device == "cuda" and available.gpu_limit(plan.processes) is None:
        raise ValueError(
            f"The run wants {plan.processes} GPU{'s' if plan.processes > 1 else ''}, and this session shows "
            f"{len(available.gpus)}. Start a session with a GPU, or set device: cpu."
        )
    found = _needs(estimate, available)
    fits = found[0].verdict is Verdict.FITS
    return Fit(estimate, found, None if fits else _remedy(estimate, available), available.notes)


def needed(estimate: Estimate) -> dict[str, int]:
    """Bytes by kind of memory, for one GPU and for the whole host."""
    if estimate.plan.device == "cuda":
        return {"GPU": estimate.total, "host": estimate.host}
    return {"host": estimate.host}


def _needs(estimate: Estimate, available: Available) -> tuple[Need, ...]:
    limits = {"GPU": available.gpu_limit(estimate.plan.processes), "host": available.host_limit}
    found = [Need(kind, count, limit) for kind, count in needed(estimate).items() if (limit := limits[kind])]
    return tuple(sorted(found, key=lambda need: need.limit.free / max(1, need.bytes)))


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """A combination of changes; numbers are None where nothing is changed."""

    row_tokens: int | None = None
    """Never under max_length, whatever it says."""
    recompute: bool = False
    bfloat16: bool = False
    nf4: bool = False
    max_length: int | None = None
    gpus: int | None = None

    def applied(self, plan: Plan) -> Plan:
        config: dict[str, Any] = {}
        if self.max_length is not None:
            config["max_length"] = self.max_length
        if self.row_tokens is not None:
            config["row_tokens"] = max(self.row_tokens, config.get("max_length", plan.config.max_length))
        if self.recompute:
            config["gradient_checkpointing"] = "always"
        if self.bfloat16:
            config["dtype"] = "bfloat16"
        if self.nf4 and self.gpus is None:  # layers in 4 bits cannot be sharded
            config["quantise"] = "nf4"
        if self.gpus is not None:
            config["parallel"] = "fsdp"
        dtype = "bfloat16" if self.bfloat16 else plan.dtype
        return replace(plan.changed(**config), dtype=dtype, processes=self.gpus or plan.processes)


def _remedy(estimate: Estimate, available: Available) -> Remedy:
    plan = estimate.plan

    def fits(choice: _Choice) -> bool:
        return _fits(choice.applied(plan), available)

    steps = _steps(plan, available)
    choice, taken = _Choice(), list[str]()
    for name, value in steps:
        choice, taken = replace(choice, **{name: value}), [*taken, name]
        if fits(choice):
            break
    else:
        short = [need for need in _needs(estimate, available) if need.verdict is not Verdict.FITS]
        return Remedy((), estimate, tuple((need.kind, round(need.bytes * ROOM)) for need in short))
    unchanged = _Choice()
    for name in taken[:-1]:
        without = replace(choice, **{name: getattr(unchanged, name)})
        choice = without if fits(without) else choice
    choice = _loosened(choice, plan, fits)
    after = estimate_of(choice.applied(plan))
    return Remedy(_changes(plan, after.plan), after)


def _fits(plan: Plan, available: Available) -> bool:
    return _needs(estimate_of(plan), available)[0].verdict is Verdict.FITS


def _steps(plan: Plan, available: Available) -> list[tuple[str, Any]]:
    """The changes that this plan has left, at their strongest, in the order in which they are tried."""
    config = plan.config
    steps: list[tuple[str, Any]] = []
    if config.row_tokens > config.max_length:
        steps.append(("row_tokens", 1))
    if not plan.recomputes:
        steps.append(("recompute", True))
    if plan.dtype == "float32":
        steps.append(("bfloat16", True))
    if plan.device == "cuda" and config.quantise == "none" and config.lora.init != "pissa" and plan.processes == 1:
        steps.append(("nf4", True))
    if config.max_length > SHORTEST:
        steps.append(("max_length", SHORTEST))
        if config.row_tokens == config.max_length:  # rows can only now be shorter
            steps.append(("row_tokens", 1))
    if plan.device == "cuda" and config.quantise == "none" and not plan.sharded and len(available.gpus) > 1:
        steps += [("gpus", count) for count in range(max(2, plan.processes), len(available.gpus) + 1)]
    return steps


def _loosened(choice: _Choice, plan: Plan, fits: Callable[[_Choice], bool]) -> _Choice:
    """The same changes, lengths cut no more than is needed."""
    config = plan.config
    if choice.max_length is not None:
        lengths = _rounded(choice.max_length, config.max_length, ROUND_LENGTH)
        choice = _largest(lengths, lambda length: replace(choice, max_length=length), fits)
    if choice.row_tokens is not None:
        shortest = choice.max_length or config.max_length
        rows = _rounded(shortest, config.row_tokens, ROUND_ROW)
        choice = _largest(rows, lambda row: replace(choice, row_tokens=row), fits)
    return choice


def _rounded(low: int, high: int, unit: int) -> list[int]:
    """low, and the multiples of unit above it and below high."""
    return [low, *range((low // unit + 1) * unit, high, unit)]


def _largest(values: Sequence[int], make: Callable[[int], _Choice], fits: Callable[[_Choice], bool]) -> _Choice:
    """The choice of the largest value that fits; values ascend, the first one fits, and what fits is a beginning."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(make(values[middle])):
            low = middle
        else:
            high = middle
    return make(values[low])


def _changes(before: Plan, after: Plan) -> tuple[Change, ...]:
    old, new = before.config, after.config
    cut = "shorter than the longest conversation: data.too_long says what becomes of it"
    length_cost = cut if new.max_length < before.longest else "no conversation is longer"
    slow = "slower on a processor without AMX" if after.device == "cpu" else "the usual precision on a GPU"
    found = [
        Change("max_length", old.max_length, new.max_length, length_cost),
        Change("row_tokens", old.row_tokens, new.row_tokens, "the result stays the same, a little slower"),
        Change(
            "gradient_checkpointing",
            old.gradient_checkpointing,
            new.gradient_checkpointing,
            "half as much work again",
        ),
        Change("dtype", before.dtype, after.dtype, slow),
        Change("quantise", old.quantise, new.quantise, "slower; needs bitsandbytes"),
        Change("parallel", old.parallel, new.parallel, "the base is shared out over the GPUs"),
        Change("GPUs", before.processes, after.processes, "start it with torchrun"),
    ]
    return tuple(change for change in found if change.was != change.now)


def size(count: int) -> str:
    """
    >>> size(1_610_612_736), size(52_428_800)
    ('1.5 GiB', '50 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
