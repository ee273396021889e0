"""Who may use what, from the words of sacctmgr, scontrol and getent; node lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.capacity import Access, NodeCapacity
from hybridspawner.targets.slurm import hostlist, parse
from hybridspawner.targets.slurm.access import (
    Association,
    PartitionRules,
    Reservation,
    groups_of,
    hold,
    node_state,
    rights,
)

ASSOCIATIONS = (
    "|root||normal\nroot|root||normal\nada|physics||normal,high\nada|chemistry||normal\nbob|physics|debug|normal\n"
)
PARTITIONS = (
    "PartitionName=normal AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL RootOnly=NO State=UP\n"
    "PartitionName=debug AllowGroups=ALL DenyAccounts=chemistry AllowQos=ALL RootOnly=NO State=UP\n"
    "PartitionName=low AllowGroups=ALL AllowAccounts=chemistry AllowQos=ALL RootOnly=NO State=UP\n"
    "PartitionName=fast AllowGroups=ALL AllowAccounts=ALL AllowQos=high RootOnly=NO State=UP\n"
    "PartitionName=staff AllowGroups=wheel,ops AllowAccounts=ALL AllowQos=ALL RootOnly=NO State=UP\n"
    "PartitionName=closed AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL RootOnly=NO State=DOWN\n"
    "PartitionName=admin AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL RootOnly=YES State=UP\n"
)
RESERVATIONS = (
    "ReservationName=course Nodes=nid[000001-000002] Flags=SPEC_NODES Users=ada,cyd Groups=(null) Accounts=(null) State=ACTIVE\n"
    "ReservationName=project Nodes=nid000003 Flags= Users=(null) Groups=(null) Accounts=physics State=ACTIVE\n"
    "ReservationName=both Nodes=nid000003 Flags= Users=ada,bob Groups=(null) Accounts=chemistry State=ACTIVE\n"
    "ReservationName=repair Nodes=nid000004 Flags=MAINT,SPEC_NODES Users=ada Groups=(null) Accounts=(null) State=ACTIVE\n"
    "ReservationName=later Nodes=nid000001 Flags= Users=ada Groups=(null) Accounts=(null) State=INACTIVE\n"
)


def all_rights() -> dict[str, Access]:
    members = parse.members("bob:x:1001:900::/home/bob:/bin/sh\n", "wheel:x:900:\nops:x:901:eve\n")
    return rights(
        parse.associations(ASSOCIATIONS), parse.partitions(PARTITIONS), parse.reservations(RESERVATIONS), members
    )


def test_accounts_and_qos() -> None:
    assert all_rights()["ada"].accounts == ("physics", "chemistry") and all_rights()["ada"].qos == ("normal", "high")
    assert all_rights()["cyd"].accounts == ()  # only a reservation knows cyd


def test_partitions() -> None:
    assert all_rights()["ada"].partitions == ("normal", "debug", "low", "fast")
    assert all_rights()["bob"].partitions == ("debug",)  # the only association is tied to it
    loose = rights(
        [Association("bob", "physics")], parse.partitions(PARTITIONS), [], {"wheel": {"bob"}, "ops": {"eve"}}
    )
    assert loose["bob"].partitions == ("normal", "debug", "staff")


def test_reservations() -> None:
    assert all_rights()["ada"].reservations == ("course", "project", "both")  # neither repairs nor what is later
    assert all_rights()["bob"].reservations == ("project",)  # named in `both`, but with no account of it
    assert rights([Association("bob", "x")], [], [Reservation("r", users=("-ada",))])["bob"].reservations == ("r",)
    assert rights([Association("ada", "x")], [], [Reservation("r", users=("-ada",))])["ada"].reservations == ()


def test_without_accounting_nothing_is_ruled_out() -> None:
    found = rights(None, parse.partitions(PARTITIONS), parse.reservations(RESERVATIONS))
    assert found["ada"].accounts is None and found["ada"].qos is None
    assert found["ada"].partitions == ("normal", "debug", "low", "fast", "staff")
    assert groups_of(parse.partitions(PARTITIONS), []) == {"wheel", "ops"}


def test_reservations_hold_nodes() -> None:
    nodes = [NodeCapacity(f"nid00000{n}", 288, 288, 900, 900, {}, {}) for n in range(1, 6)]
    held = {node.name: node for node in hold(nodes, parse.reservations(RESERVATIONS))}
    assert held["nid000001"].reservations == {"course"} and held["nid000003"].reservations == {"project", "both"}
    assert not held["nid000004"].usable and held["nid000004"].reservations == frozenset()
    assert held["nid000005"].usable and held["nid000005"].state == ""


@pytest.mark.parametrize(
    ("words", "state"),
    [("idle", ""), ("mixed", ""), ("allocated", ""), ("planned", ""), ("completing", ""), ("idle*", "down"), ("down", "down"),
     ("IDLE DRAIN", "drained"), ("draining", "drained"), ("maint", "reserved"), ("reserved", "reserved"), ("powered_down~", "down")],
)  # fmt: skip
def test_node_states(words: str, state: str) -> None:
    assert node_state(words) == state


def test_trial_submits() -> None:
    words = "sbatch: Job 2 to start at 2026-11-22T06:06:49 using 1 processors on nodes nid000001 in partition normal"
    start = parse.test_only(words)
    assert start is not None and start.isoformat() == "2026-11-22T06:06:49"
    assert parse.test_only("sbatch: hello") is None and parse.test_only("Job 2 to start at 2026-99-99T00:00:00") is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("nid000001", ["nid000001"]),
        ("nid[000001-000003,000007],login1", ["nid000001", "nid000002", "nid000003", "nid000007", "login1"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("(null)", []),
        ("", []),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    assert hostlist.expand(text) == names and hostlist.first(text) == (names[0] if names else "")


@pytest.mark.parametrize("text", ["nid[1-", "nid[a-b]", "nid]1[", "n[1-9999999]"])
def test_what_is_no_node_list(text: str) -> None:
    with pytest.raises(ValueError, match="not a|more than"):
        hostlist.expand(text)
    assert hostlist.first(text) == ""


@given(st.integers(0, 10**6), st.integers(0, 50), st.integers(1, 8))
def test_ranges_keep_their_width(low: int, more: int, width: int) -> None:
    names = hostlist.expand(f"n[{low:0{width}d}-{low + more:0{width}d}]")
    assert [int(name[1:]) for name in names] == list(range(low, low + more + 1))
    assert all(len(name) >= width + 1 for name in names)


@given(st.text())
def test_readers_survive_anything(text: str) -> None:
    rights(parse.associations(text), parse.partitions(text), parse.reservations(text), parse.members(text, text))
    parse.test_only(text)
    try:
        hostlist.expand(text)
    except ValueError:
        pass


def test_a_closed_partition_is_nobody_s() -> None:
    assert rights([Association("ada", "x")], [PartitionRules("p", up=False)], [])["ada"].partitions == ()
