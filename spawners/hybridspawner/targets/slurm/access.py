"""Who may use what now, from the records of accounting and of the controller: a pure decision for all transports.

It leaves out what it cannot know (a lua plugin, limits, AllocNodes): what is named here may still be refused by sbatch,
which has the last word; what is left out cannot be used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from ...capacity import Access, NodeCapacity


@dataclass(frozen=True)
class Association:
    """One line of accounting: `user` may charge `account`, in `partition` only if one is named, with these QoS."""

    user: str
    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartitionRules:
    """Who a partition admits. None: everybody. Deny lists only count without the matching allow list, as in Slurm."""

    name: str
    up: bool = True
    groups: frozenset[str] | None = None
    accounts: frozenset[str] | None = None
    qos: frozenset[str] | None = None
    denied_accounts: frozenset[str] = frozenset()
    denied_qos: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Reservation:
    """A reservation that is active now. A name that starts with `-` in users or accounts excludes."""

    name: str
    nodes: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    maintenance: bool = False


def rights(
    associations: Collection[Association] | None,
    partitions: Collection[PartitionRules],
    reservations: Collection[Reservation],
    members: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Access]:
    """What each user that any record names may use now.

    `associations` is None where there is no accounting: then accounts and QoS are unknown. `members` are the users of
    groups; groups that it does not have are unknown and exclude nobody.
    """
    members = members or {}
    own: dict[str, list[Association]] = defaultdict(list)
    for association in associations or ():
        own[association.user].append(association)
    named = {user for r in reservations for user in r.users if not user.startswith("-")}
    named |= {user for users in members.values() for user in users} if associations is None else set()
    result = {}
    for user in own.keys() | named:
        accounts = _unique(a.account for a in own[user]) if associations is not None else None
        qos = _unique(q for a in own[user] for q in a.qos) if associations is not None else None
        tied = {a.partition for a in own[user]}
        result[user] = Access(
            accounts,
            tuple(p.name for p in partitions if _admits(p, user, accounts, qos, members) and _tied(tied, p.name)),
            qos,
            tuple(r.name for r in reservations if not r.maintenance and _open_to(r, user, accounts, members)),
        )
    return result


def groups_of(partitions: Iterable[PartitionRules], reservations: Iterable[Reservation]) -> set[str]:
    """The groups whose members have to be known."""
    return {g for p in partitions for g in p.groups or ()} | {g for r in reservations for g in r.groups}


def hold(nodes: Iterable[NodeCapacity], reservations: Collection[Reservation]) -> tuple[NodeCapacity, ...]:
    """`nodes` with the active reservations that hold them; a node that is held is out of service for the others.

    A node under maintenance is held and has no reservation that a session could name.
    """
    held: dict[str, set[str]] = defaultdict(set)
    for reservation in reservations:
        for name in reservation.nodes:
            held[name] |= set() if reservation.maintenance else {reservation.name}
    return tuple(
        replace(node, usable=False, state=node.state or "reserved", reservations=frozenset(held[node.name]))
        if node.name in held
        else node
        for node in nodes
    )


def node_state(words: str) -> str:
    """Why a node in this state of Slurm takes no jobs, in one word: down, drained or reserved; "" if it takes them.

    `words` are the long states of sinfo, with its suffix, or of the REST API. `*` marks a node that does not answer,
    `$` one under maintenance; `~`, powered off until a job comes, takes jobs.
    """
    text = words.lower()
    if any(word in text for word in ("drain", "fail", "reboot", "perfctrs", "blocked")):
        return "drained"
    if "maint" in text or "reserved" in text or "$" in text:
        return "reserved"
    if any(word in text for word in ("down", "unknown", "power", "future", "not_responding", "*", "error")):
        return "down"
    return ""


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _tied(tied: set[str], partition: str) -> bool:
    """Whether associations that may be tied to partitions allow this one."""
    return not tied or "" in tied or partition in tied


def _admits(
    partition: PartitionRules,
    user: str,
    accounts: Collection[str] | None,
    qos: Collection[str] | None,
    members: Mapping[str, Collection[str]],
) -> bool:
    if not partition.up:
        return False
    if partition.groups is not None and not any(user in members.get(g, {user}) for g in partition.groups):
        return False
    return _allowed(accounts, partition.accounts, partition.denied_accounts) and _allowed(
        qos, partition.qos, partition.denied_qos
    )


def _allowed(own: Collection[str] | None, allowed: frozenset[str] | None, denied: frozenset[str]) -> bool:
    if own is None:
        return True
    if allowed is not None:
        return any(name in allowed for name in own)
    return not own or any(name not in denied for name in own)


def _open_to(
    reservation: Reservation, user: str, accounts: Collection[str] | None, members: Mapping[str, Collection[str]]
) -> bool:
    """scontrol's manual: a reservation for users and for accounts wants both to match."""
    if reservation.groups and not any(user in members.get(g, {user}) for g in reservation.groups):
        return False
    if reservation.users and not _listed({user}, reservation.users):
        return False
    return not reservation.accounts or accounts is None or _listed(set(accounts), reservation.accounts)


def _listed(own: set[str], names: Collection[str]) -> bool:
    excluded = {name[1:] for name in names if name.startswith("-")}
    included = {name for name in names if not name.startswith("-")}
    return bool(own & included) if included else bool(own - excluded)
