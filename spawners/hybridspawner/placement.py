"""Which target a request goes to, and why: a pure function of the request, the site and the last readings.

Of the targets that the request, the profile and the environment allow, best first: those that can start it now, in the
site's order of preference; those that the scheduler expects to start it within the policy's `longest_wait`, in that
order; those that it expects to start it later, the soonest first; those of which nobody knows when, in order of
preference. A target that can never run it is never chosen. A target chosen by name is never second-guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .capacity import Access, Capacity, Fit, available
from .duration import parse_duration, spoken_duration
from .request import AUTO, SpawnRequest, account_of, candidates, partition_of, slurm_targets
from .site import LocalTarget, Resources, Site, SlurmTarget, Target


class NoTarget(LookupError):
    """No target can ever run this request; the message says what each one lacks."""


@dataclass(frozen=True)
class Offer:
    """What one target offers for a request: its fit, and that fit in words. Ages and times in seconds.

    `gist` is the shorter form of `words`, for a sentence over several targets. `starts_in` is 0 for a start now, the
    scheduler's estimate for a later one, None where nobody knows. `note` says why the policy passed the target over.
    """

    target: str
    title: str
    fit: Fit
    words: str
    age: float | None
    gist: str = ""
    starts_in: float | None = None
    estimate_age: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Placement:
    """The choice, the sentence that explains it, and every offer it was made from, in the order of preference."""

    target: str
    reason: str
    offers: tuple[Offer, ...]


def place(
    request: SpawnRequest,
    site: Site,
    capacities: Mapping[str, Capacity],
    user_groups: Collection[str] = (),
    tried: Collection[str] = (),
) -> Placement:
    """Choose a target for a validated `request`, none of `tried`. Raises NoTarget when no other could ever run it."""
    offers = offers_for(request, site, capacities, user_groups)
    if request.target != AUTO and request.target not in tried:
        chosen = next(o for o in offers if o.target == request.target)
        return Placement(chosen.target, f"you chose {chosen.title} ({chosen.words})", offers)
    best = ranked(offers, site, tried)
    if not best:
        raise NoTarget(f"No target can run profile {site.profile(request.profile).title}: {_listed(offers)}.")
    noted = tuple(replace(o, note=_note(o, best[0], site, offers)) for o in offers)
    return Placement(best[0].target, _reason(best[0], offers), noted)


def offers_for(
    request: SpawnRequest, site: Site, capacities: Mapping[str, Capacity], user_groups: Collection[str] = ()
) -> tuple[Offer, ...]:
    """The offers of all targets that `request` may go to, whichever it names, in the site's order of preference."""
    profile, environment = site.profile(request.profile), site.environment(request.environment)
    allowed = slurm_targets(request, site, candidates(site, profile, environment, user_groups))
    return tuple(offer(name, request, site, capacities.get(name)) for name in site.preferred if name in allowed)


def ranked(offers: Sequence[Offer], site: Site, tried: Collection[str] = ()) -> tuple[Offer, ...]:
    """`offers` (in order of preference), best first, without those that never fit and those that were tried."""
    longest = parse_duration(site.policy.longest_wait)

    def rank(offer: Offer) -> tuple[int, float]:
        if offer.fit is Fit.NOW:
            return 0, 0
        if offer.starts_in is None:
            return 3, 0
        return (1, 0) if offer.starts_in <= longest else (2, offer.starts_in)

    possible = [o for o in offers if o.fit is not Fit.NEVER and o.target not in tried]
    return tuple(sorted(possible, key=rank))


def next_target(
    request: SpawnRequest,
    site: Site,
    capacities: Mapping[str, Capacity],
    user_groups: Collection[str],
    tried: Collection[str],
) -> Offer | None:
    """The best offer besides those tried, whichever target the request names; None if no other could ever run it.

    `starts_in` says whether it is worth moving to: 0 is a start now.
    """
    best = ranked(offers_for(request, site, capacities, user_groups), site, tried)
    return best[0] if best else None


def offer(name: str, request: SpawnRequest, site: Site, capacity: Capacity | None) -> Offer:
    """What target `name` offers for `request`, given what is known of it (None: not read yet)."""
    target, need = site.target(name), site.profile(request.profile).resources
    if capacity is None or capacity.error is not None:
        why = capacity.error if capacity is not None and capacity.error else "not read yet"
        words = f"free resources unknown, {why}"
        return Offer(name, target.title, Fit.UNKNOWN, words, None, words)
    refusal = _refusal(request, target, capacity.access)
    if refusal is not None:
        kind, words = refusal
        # a course's reservation may be younger than the reading of rights: Slurm itself has the last word on it
        fit = Fit.UNKNOWN if kind == "reservation" else Fit.NEVER
        return Offer(name, target.title, fit, words, capacity.age, words)
    partition = partition_of(request, target)
    fit, full = capacity.fit(need, partition, request.reservation), _full(target, capacity)
    if full and fit is Fit.NOW:
        fit = Fit.LATER
    gist = _gist(fit, full, need, capacity, target, partition, request.reservation)
    away = _out_of_service(capacity.out_of_service(partition, request.reservation))
    if fit is not Fit.LATER:
        words = "; ".join(filter(None, [gist, away]))
        return Offer(name, target.title, fit, words, capacity.age, gist, 0.0 if fit is Fit.NOW else None)
    estimate = capacity.estimate if full is None else None  # the scheduler does not know that this hub holds back
    if estimate is None:
        return Offer(name, target.title, fit, "; ".join(filter(None, [gist, away])), capacity.age, gist)
    about = "within a minute" if estimate.starts_in < 60 else f"in about {spoken_duration(estimate.starts_in)}"
    words = "; ".join(filter(None, [gist, f"estimated start {about}", away]))
    short = f"{gist}, {about.removeprefix('in ')} (an estimate)"
    return Offer(
        name, target.title, fit, words, capacity.age, short, max(0.0, estimate.starts_in), round(estimate.age, 1)
    )


def _full(target: Target, capacity: Capacity) -> str | None:
    """The hub's own limit that is reached, in words."""
    if target.max_waiting is not None and capacity.waiting >= target.max_waiting:
        many = "sessions wait or start" if capacity.waiting != 1 else "session waits or starts"
        return f"{capacity.waiting} {many} there already, and the site allows no more"
    return None


def _refusal(request: SpawnRequest, target: Target, access: Access) -> tuple[str, str] | None:
    """The field that stands against this user there, and why; None if nothing is known to."""
    if not isinstance(target, SlurmTarget):
        return None
    if access.accounts == ():
        return "account", "you have no account there"
    for kind, value, listed, yours in (
        ("account", account_of(request, target), target.accounts, access.accounts),
        ("partition", partition_of(request, target), target.partitions, access.partitions),
        ("reservation", request.reservation, target.reservations, access.reservations),
    ):
        if value is not None and yours is not None and value not in yours:
            open_here = [v for v in yours if listed is None or v in listed]
            return kind, f"{kind} {value} is not open to you now; yours: {', '.join(open_here) or 'none'}"
    return None


def _gist(
    fit: Fit,
    full: str | None,
    need: Resources,
    capacity: Capacity,
    target: Target,
    partition: str | None,
    reservation: str | None,
) -> str:
    """What is free there, and what stands in the way."""
    if not capacity.of(partition):
        return "it has no nodes in service" if partition is None else f"partition {partition} has no nodes in service"
    if reservation is not None and fit is Fit.LATER and not capacity.of(partition, reservation):
        return f"reservation {reservation} holds no nodes there now"
    if isinstance(target, LocalTarget) and not need.gpus:
        return full or ("all its sessions are taken" if fit is Fit.LATER else "starts at once")
    gpus = capacity.gpus(need.gpu_type, partition, reservation)
    have = (
        _free_gpus(gpus, isinstance(target, SlurmTarget))
        if need.gpus
        else _free_cores(need, capacity, partition, reservation)
    )
    have += f" in reservation {reservation}" if reservation else ""
    if fit is Fit.NOW:
        return have
    if fit is Fit.NEVER:
        return f"{have}, and no node is large enough for this profile" if gpus or not need.gpus else have
    if full is not None:
        return f"{have}, but {full}"
    if capacity.quota is not None and (left := capacity.quota.lacks(need)) is not None:
        return f"{have}, but its quota leaves {left}"
    if need.gpus and sum(free for free, _ in gpus.values()) >= need.gpus * need.nodes:
        return f"{have}, but not together with the cores and memory of this profile"
    return have


def _free_cores(need: Resources, capacity: Capacity, partition: str | None, reservation: str | None) -> str:
    """ "3 of 4 nodes have a free core"."""
    nodes = capacity.of(partition, reservation)
    room = sum(available(n, reservation) and n.cpus_free >= need.cpus for n in nodes)
    cores = "a free core" if need.cpus == 1 else f"{need.cpus} free cores"
    return f"{room} of {len(nodes)} nodes {'has' if room == 1 else 'have'} {cores}"


def _free_gpus(gpus: Mapping[str, tuple[int, int]], typed: bool) -> str:
    """ "12 of 64 GH200 GPUs free now"; several types one after the other."""
    if not gpus:
        return "no such GPUs"
    kinds = (f"{free} of {total}{f' {kind.upper()}' if kind and typed else ''}" for kind, (free, total) in gpus.items())
    return f"{', '.join(kinds)} GPUs free now"


def _out_of_service(nodes: Mapping[str, int]) -> str:
    """ "3 nodes are down, 8 reserved"; empty if all serve."""
    words: list[str] = []
    for state, count in sorted(nodes.items()):
        words.append(f"{count} {state}" if words else f"{count} node{'s are' if count > 1 else ' is'} {state}")
    return ", ".join(words)


def _reason(chosen: Offer, offers: Sequence[Offer]) -> str:
    """Why `chosen`: what it offers, then what the others do."""
    others = [o for o in offers if o is not chosen]
    parts = [_says(chosen)]
    if not others:
        parts.append("it is the only target for this choice")
    elif chosen.fit is not Fit.NOW:
        parts.append("nothing can start it at once")
    elif offers[0] is chosen and any(o.fit is Fit.NOW for o in others):
        parts.append("it comes first at this site")
    return "; ".join([*parts, *map(_says, others)])


def _note(offer: Offer, chosen: Offer, site: Site, offers: Sequence[Offer]) -> str:
    """Why the policy passed over a target that the site prefers to the chosen one; empty for all others."""
    if offer.fit is Fit.NEVER or offers.index(offer) >= offers.index(chosen):
        return ""
    if chosen.fit is Fit.NOW:
        return f"passed over: {chosen.title} can start it now"
    if offer.starts_in is None:
        return f"passed over: nobody knows how long one waits, and {chosen.title} has an estimate"
    longest = spoken_duration(parse_duration(site.policy.longest_wait))
    return f"passed over: longer than the {longest} that this site lets one wait, and {chosen.title} is sooner"


def _says(offer: Offer) -> str:
    return f"{offer.title}: {offer.gist}"


def _listed(offers: Sequence[Offer]) -> str:
    return "; ".join(map(_says, offers)) or "no target is allowed for this choice"
