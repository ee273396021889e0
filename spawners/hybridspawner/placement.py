"""Which target a request goes to, and why: a pure function of the request, the site and the last readings.

Order: the targets that the request, the profile and the environment allow; of these the first one that can start the
session now; else the first one that could start it later, in the order of the site file. What cannot be read ranks
with those that make one wait. A target chosen by name is never second-guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .capacity import Capacity, Fit
from .request import AUTO, SpawnRequest, candidates, slurm_targets
from .site import LocalTarget, Resources, Site, SlurmTarget


class NoTarget(LookupError):
    """No target can ever run this request; the message says what each one lacks."""


@dataclass(frozen=True)
class Offer:
    """What one target offers for a request: its fit, and that fit in words. `age` of the reading in seconds."""

    target: str
    title: str
    fit: Fit
    words: str
    age: float | None


@dataclass(frozen=True)
class Placement:
    """The choice, the sentence that explains it, and every offer it was made from, in the order of the site file."""

    target: str
    reason: str
    offers: tuple[Offer, ...]


def place(
    request: SpawnRequest, site: Site, capacities: Mapping[str, Capacity], user_groups: Collection[str] = ()
) -> Placement:
    """Choose a target for a validated `request`. Raises NoTarget when `auto` finds none that could ever run it."""
    profile, environment = site.profile(request.profile), site.environment(request.environment)
    allowed = slurm_targets(request, site, candidates(site, profile, environment, user_groups))
    offers = tuple(offer(name, request, site, capacities.get(name)) for name in allowed)
    if request.target != AUTO:
        chosen = next(o for o in offers if o.target == request.target)
        return Placement(chosen.target, f"you chose {chosen.title} ({chosen.words})", offers)

    now = [o for o in offers if o.fit is Fit.NOW]
    possible = now or [o for o in offers if o.fit is not Fit.NEVER]
    if not possible:
        raise NoTarget(f"No target can run profile {profile.title}: {_listed(offers)}.")
    chosen = possible[0]
    others = [o for o in offers if o is not chosen]
    if len(offers) == 1:
        reason = f"{chosen.title} ({chosen.words}); it is the only target for this choice"
    elif now:
        passed = offers[: offers.index(chosen)]
        because = _listed(passed) if passed else "it comes first at this site"
        reason = f"{chosen.title} ({chosen.words}); {because}"
    else:
        reason = f"{chosen.title} ({chosen.words}); nothing can start it at once. {_listed(tuple(others))}"
    return Placement(chosen.target, reason, offers)


def offer(name: str, request: SpawnRequest, site: Site, capacity: Capacity | None) -> Offer:
    """What target `name` offers for `request`, given its last reading (None: not read yet)."""
    target, need = site.target(name), site.profile(request.profile).resources
    if capacity is None or capacity.error is not None:
        why = capacity.error if capacity is not None and capacity.error else "not read yet"
        return Offer(name, target.title, Fit.UNKNOWN, f"free resources unknown, {why}", None)
    partition = _partition(request, target)
    fit = capacity.fit(need, partition)
    return Offer(name, target.title, fit, _words(fit, need, capacity, target), capacity.age)


def _partition(request: SpawnRequest, target: object) -> str | None:
    if not isinstance(target, SlurmTarget):
        return None
    return request.partition or (target.partitions[0] if target.partitions else None)


def _words(fit: Fit, need: Resources, capacity: Capacity, target: object) -> str:
    if need.gpus:
        free, total = capacity.gpus(need.gpu_type)
        kind = f"{need.gpu_type.upper()} GPUs" if need.gpu_type and isinstance(target, SlurmTarget) else "GPUs"
        have = f"{free} of {total} {kind} free now" if total else f"no {kind}"
    elif isinstance(target, LocalTarget):
        have = "starts at once" if fit is Fit.NOW else "all its sessions are taken"
    else:
        room = sum(node.usable and node.cpus_free >= need.cpus for node in capacity.nodes)
        have = f"{room} of {len(capacity.nodes)} nodes have {need.cpus} free cores"
    if fit is Fit.NEVER:
        if not capacity.nodes:
            return "it has no nodes in service"
        return f"{have}, and no node is large enough for this profile"
    if fit is Fit.LATER and need.gpus and capacity.gpus(need.gpu_type)[0] >= need.gpus * need.nodes:
        return f"{have}, but not together with the cores and memory of this profile"
    return have


def _listed(offers: tuple[Offer, ...]) -> str:
    return "; ".join(f"{o.title}: {o.words}" for o in offers) or "no target is allowed for this choice"
