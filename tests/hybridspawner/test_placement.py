"""The choice of a target: what can start now, then what the scheduler expects, by preference; always with its reason."""

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.capacity import Access, Capacity, CapacityBoard, Estimate, Fit, NodeCapacity, Quota, Reading
from hybridspawner.placement import NoTarget, next_target, offer, offers_for, place
from hybridspawner.request import validate
from hybridspawner.site import Resources
from tests.hybridspawner.sites import document, site

SITE = site()
GPU = validate({"profile": "gpu"}, SITE)


def node(
    free: int, total: int = 4, kind: str = "", cpus: float = 64, usable: bool = True, partitions: str = "normal"
) -> NodeCapacity:
    gpus, gpus_free = {kind: total}, {kind: free}
    return NodeCapacity("n", 64, cpus, 512, 512, gpus, gpus_free, usable, frozenset(partitions.split()))


def reading(target: str, *nodes: NodeCapacity, error: str | None = None) -> Capacity:
    return Capacity(target, nodes, time.monotonic(), error)


def both(pods: Capacity, alps: Capacity) -> dict[str, Capacity]:
    return {"pods": pods, "alps": alps}


def test_the_first_that_can_start_now() -> None:
    placement = place(GPU, SITE, both(reading("pods", node(4)), reading("alps", node(4, kind="gh200"))))
    assert placement.target == "pods" and "4 of 4 GPUs free now" in placement.reason


def test_a_full_target_is_passed_over_and_the_reason_says_so() -> None:
    placement = place(GPU, SITE, both(reading("pods", node(1)), reading("alps", node(4, kind="gh200"))))
    assert placement.target == "alps" and "1 of 4 GPUs free now" in placement.reason


def test_with_nothing_free_the_order_of_the_file_decides() -> None:
    full = both(reading("pods", node(0)), reading("alps", node(0, kind="gh200")))
    assert place(GPU, SITE, full).target == "pods"
    turned = {**document(), "targets": [document()["targets"][i] for i in (1, 0, 2)]}
    assert place(GPU, site(**turned), full).target == "alps"
    assert "at once" in place(GPU, SITE, full).reason


def test_what_can_never_run_it_is_not_chosen() -> None:
    small = both(reading("pods", node(1, total=1)), reading("alps", node(0, kind="gh200")))
    assert place(GPU, SITE, small).target == "alps"


def test_nothing_can_ever_run_it() -> None:
    with pytest.raises(NoTarget, match="no node is large enough"):
        place(GPU, SITE, both(reading("pods", node(1, total=1)), reading("alps", node(1, total=1, kind="gh200"))))


def test_an_unreadable_target_is_only_better_than_none() -> None:
    silent = reading("pods", error="no answer in 8 s")
    assert place(GPU, SITE, both(silent, reading("alps", node(4, kind="gh200")))).target == "alps"
    assert place(GPU, SITE, both(silent, reading("alps", node(1, total=1, kind="gh200")))).target == "pods"


def test_a_choice_by_name_is_kept() -> None:
    chosen = validate({"profile": "gpu", "target": "alps"}, SITE)
    placement = place(chosen, SITE, both(reading("pods", node(4)), reading("alps", node(0, kind="gh200"))))
    assert placement.target == "alps" and "you chose Slurm" in placement.reason


def test_a_partition_means_slurm_and_its_own_nodes() -> None:
    request = validate({"profile": "gpu", "partition": "debug"}, SITE)
    nodes = node(4, kind="gh200"), node(0, kind="gh200", partitions="debug")
    placement = place(request, SITE, both(reading("pods", node(4)), reading("alps", *nodes)))
    assert placement.target == "alps" and placement.offers[0].fit is Fit.LATER


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=6), st.integers(1, 4), st.integers(1, 3))
def test_fit_counts_whole_nodes(nodes: list[tuple[int, bool]], gpus: int, wanted: int) -> None:
    capacity = reading("x", *(node(free, usable=usable) for free, usable in nodes))
    fit = capacity.fit(Resources(gpus=gpus, nodes=wanted))
    now = sum(usable and free >= gpus for free, usable in nodes) >= wanted
    assert fit is (Fit.NOW if now else Fit.LATER if len(nodes) >= wanted else Fit.NEVER)


# --- what else is known: estimates, rights, reservations, quota, limits of the hub ---------------------------------------


def full(target: str, minutes: float | None = None) -> Capacity:
    """All GPUs taken; the scheduler expects a start in `minutes`, if it tells."""
    nodes = reading(target, node(0, kind="gh200" if target == "alps" else ""))
    return replace(nodes, estimate=Estimate(minutes * 60) if minutes is not None else None)


def test_what_is_expected_within_the_longest_wait_goes_by_preference() -> None:
    placement = place(GPU, SITE, both(full("pods", 9), full("alps", 2)))
    assert placement.target == "pods"
    assert (
        "Kubernetes: 0 of 4 GPUs free now, about 9 min (an estimate); nothing can start it at once" in placement.reason
    )


def test_what_takes_too_long_is_passed_over_for_what_is_sooner_and_says_so() -> None:
    placement = place(GPU, SITE, both(full("pods", 30), full("alps", 25)))
    assert placement.target == "alps" and "about 25 min (an estimate)" in placement.reason
    assert "longer than the 10 min" in placement.offers[0].note and "Slurm is sooner" in placement.offers[0].note
    patient = site(policy={"longest_wait": "01:00:00"})
    assert place(GPU, patient, both(full("pods", 30), full("alps", 25))).target == "pods"


def test_an_estimate_is_better_than_none() -> None:
    placement = place(GPU, SITE, both(full("pods"), full("alps", 500)))
    assert placement.target == "alps" and "nobody knows" in placement.offers[0].note


def test_the_reason_reads_as_a_sentence_over_all_targets() -> None:
    placement = place(GPU, SITE, both(reading("pods", node(2)), full("alps", 25)))
    expected = "Kubernetes: 2 of 4 GPUs free now; Slurm: 0 of 4 GH200 GPUs free now, about 25 min (an estimate)"
    assert placement.reason == expected
    slurm = placement.offers[1]
    assert slurm.words == "0 of 4 GH200 GPUs free now; estimated start in about 25 min" and slurm.starts_in == 1500


def test_the_policy_s_preference_goes_before_the_order_of_the_file() -> None:
    turned = site(policy={"preference": ["alps"]})
    placement = place(GPU, turned, both(reading("pods", node(4)), reading("alps", node(4, kind="gh200"))))
    assert placement.target == "alps" and "it comes first at this site" in placement.reason
    assert [o.target for o in placement.offers] == ["alps", "pods"]


def test_nodes_that_cannot_serve_are_counted_and_said() -> None:
    down = replace(node(4, kind="gh200", usable=False), state="down")
    held = replace(node(4, kind="gh200", usable=False), state="reserved", reservations=frozenset({"course"}))
    capacity = reading("alps", node(3, kind="gh200"), down, down, held)
    assert offer("alps", GPU, SITE, capacity).words == "3 of 16 GH200 GPUs free now; 2 nodes are down, 1 reserved"
    one = reading("alps", node(3, kind="gh200"), down)
    assert offer("alps", GPU, SITE, one).words.endswith("; 1 node is down")


def test_a_reservation_opens_its_nodes_and_no_others() -> None:
    held = replace(node(4, kind="gh200", usable=False), state="reserved", reservations=frozenset({"course"}))
    named = validate({"profile": "gpu", "reservation": "course"}, SITE)
    alone = reading("alps", node(0, kind="gh200"), held)
    assert offer("alps", GPU, SITE, alone).fit is Fit.LATER
    assert offer("alps", named, SITE, alone).fit is Fit.NOW
    assert offer("alps", named, SITE, alone).words == "4 of 4 GH200 GPUs free now in reservation course"
    without = offer("alps", named, SITE, reading("alps", node(4, kind="gh200")))
    assert without.fit is Fit.LATER and without.words == "reservation course holds no nodes there now"
    broken = replace(held, state="down")
    assert offer("alps", named, SITE, reading("alps", broken)).fit is Fit.LATER


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        (Quota(sessions=0), "no sessions"),
        (Quota(gpus=1), "1 GPU"),
        (Quota(cpus=3.5), "3.5 cores"),
        (Quota(memory_gb=1), "1 GB of memory"),
    ],
)
def test_a_used_up_quota_makes_one_wait(quota: Quota, words: str) -> None:
    capacity = replace(reading("pods", node(4)), quota=quota)
    made = offer("pods", GPU, SITE, capacity)
    assert made.fit is Fit.LATER and made.words == f"4 of 4 GPUs free now, but its quota leaves {words}"
    roomy = replace(capacity, quota=Quota(sessions=1, gpus=2, cpus=4, memory_gb=8))
    assert offer("pods", GPU, SITE, roomy).fit is Fit.NOW


def test_a_target_that_the_hub_has_filled_is_later_and_the_scheduler_s_estimate_does_not_count() -> None:
    targets = [{**t, "max_waiting": 2} if t["name"] == "alps" else t for t in document()["targets"]]
    free = replace(reading("alps", node(4, kind="gh200")), waiting=2, estimate=Estimate(5))
    made = offer("alps", GPU, site(targets=targets), free)
    assert made.fit is Fit.LATER and made.starts_in is None and "2 sessions wait or start there already" in made.words
    assert offer("alps", GPU, site(targets=targets), replace(free, waiting=1)).fit is Fit.NOW


@pytest.mark.parametrize(
    ("options", "access", "words"),
    [
        ({}, Access(accounts=()), "you have no account there"),
        ({"account": "g2"}, Access(accounts=("g1", "unlisted")), "account g2 is not open to you now; yours: g1"),
        (
            {"partition": "debug"},
            Access(partitions=("normal",)),
            "partition debug is not open to you now; yours: normal",
        ),
    ],
)
def test_what_the_user_may_not_use_is_never_chosen(options: dict[str, str], access: Access, words: str) -> None:
    request = validate({"profile": "gpu", **options}, SITE)
    capacity = replace(reading("alps", node(4, kind="gh200", partitions="normal debug")), access=access)
    made = offer("alps", request, SITE, capacity)
    assert made.fit is Fit.NEVER and made.words == words
    assert offer("alps", request, SITE, replace(capacity, access=Access())).fit is not Fit.NEVER


def test_a_reservation_that_is_not_known_to_be_the_user_s_is_left_to_slurm() -> None:
    request = validate({"profile": "gpu", "reservation": "course"}, SITE)
    held = replace(node(4, kind="gh200", usable=False), state="reserved", reservations=frozenset({"course"}))
    placement = place(request, SITE, {"alps": replace(reading("alps", held), access=Access(reservations=("old",)))})
    assert placement.target == "alps" and placement.offers[0].fit is Fit.UNKNOWN
    assert "reservation course is not open to you now; yours: old" in placement.reason


def test_the_next_target_is_the_best_of_the_others() -> None:
    capacities = both(reading("pods", node(0)), full("alps", 25))
    assert next_target(GPU, SITE, capacities, (), ["alps", "pods"]) is None
    other = next_target(GPU, SITE, capacities, (), ["pods"])
    assert other is not None and other.target == "alps" and other.starts_in == 1500
    chosen = validate({"profile": "gpu", "target": "alps"}, SITE)
    other = next_target(chosen, SITE, both(reading("pods", node(4)), full("alps")), (), ["alps"])
    assert other is not None and other.target == "pods" and other.starts_in == 0


nodes = st.builds(
    lambda free, total, usable, state, held, kind: replace(
        node(min(free, total), total, kind, usable=usable and not state), state=state, reservations=frozenset(held)
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(["", "", "down", "drained", "reserved"]),
    st.sets(st.sampled_from(["course", "other"]), max_size=1),
    st.sampled_from(["", "gh200", "a100"]),
)
limits = st.none() | st.integers(0, 8)
quotas = st.none() | st.builds(Quota, sessions=limits, cpus=limits, memory_gb=limits, gpus=limits)
rights = st.builds(Access, accounts=st.sampled_from([None, (), ("g1",), ("g2",)]))


def capacity_of(name: str) -> st.SearchStrategy[Capacity]:
    return st.builds(
        lambda held, error, quota, waiting, access, wait: Capacity(
            name,
            tuple(held),
            time.monotonic(),
            error,
            quota,
            waiting,
            access,
            Estimate(wait) if wait is not None else None,
        ),
        st.lists(nodes, max_size=4),
        st.sampled_from([None, None, None, "it does not answer"]),
        quotas,
        st.integers(0, 3),
        rights,
        st.none() | st.floats(0, 1e7),
    )


policies = st.fixed_dictionaries(
    {
        "preference": st.permutations(["pods", "alps", "here"]),
        "longest_wait": st.sampled_from(["00:10:00", "00:00:01", "9-00:00:00"]),
    }
)
requests = st.fixed_dictionaries(
    {"profile": st.sampled_from(["small", "gpu"])}, optional={"reservation": st.just("course")}
)


@given(
    requests,
    policies,
    capacity_of("pods"),
    capacity_of("alps"),
    capacity_of("here"),
    st.sets(st.sampled_from(["pods", "alps", "here"])),
)
def test_a_choice_is_possible_untried_explained_and_the_best_of_its_kind(
    options: dict, policy: dict, pods: Capacity, alps: Capacity, here: Capacity, tried: set[str]
) -> None:
    here_site = site(policy=policy, targets=[{**t, "max_waiting": 2} for t in document()["targets"]])
    request = validate(options, here_site)
    capacities = {"pods": pods, "alps": alps, "here": here}
    try:
        placement = place(request, here_site, capacities, (), tried)
    except NoTarget as error:
        untried = [o for o in offers_for(request, here_site, capacities) if o.target not in tried]
        assert all(o.fit is Fit.NEVER for o in untried) and str(error).startswith("No target can run")
        return
    offers = {o.target: o for o in placement.offers}
    chosen = offers[placement.target]
    assert placement.target not in tried and chosen.fit is not Fit.NEVER
    assert placement.reason.startswith(f"{chosen.title}: {chosen.gist}")
    rivals = [o for o in placement.offers if o.target not in tried]
    if any(o.fit is Fit.NOW for o in rivals):
        assert chosen.fit is Fit.NOW
    elif chosen.starts_in is None:
        assert all(o.starts_in is None for o in rivals)
    longest = (
        9 * 86400 if policy["longest_wait"] == "9-00:00:00" else 600 if policy["longest_wait"] == "00:10:00" else 1
    )
    for other in rivals[: rivals.index(chosen)]:  # preferred, possible and yet not chosen: the policy says why
        if other.fit is not Fit.NEVER:
            assert other.note and (other.starts_in is None or other.starts_in > longest)
    for o in placement.offers:
        capacity, need = capacities[o.target], here_site.profile(request.profile).resources
        if o.fit is Fit.NOW:
            assert capacity.quota is None or capacity.quota.lacks(need) is None
            assert capacity.waiting < 2 and o.starts_in == 0
        if o.target == "alps" and capacity.access.accounts in ((), ("g2",)) and capacity.error is None:
            assert o.fit is Fit.NEVER
    again = place(request, here_site, capacities, (), tried)
    assert (again.target, again.reason) == (placement.target, placement.reason)


async def test_many_readers_cost_one_query_and_a_failure_is_a_reading() -> None:
    asked = 0

    async def slow() -> Reading:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Reading((node(1),))

    async def broken() -> Reading:
        raise OSError("refused")

    async def never() -> Reading:
        await asyncio.Event().wait()
        return Reading(())

    board = CapacityBoard({"a": slow, "b": broken, "c": never}, patience=0.05)
    readings = await asyncio.gather(*(board.read("a") for _ in range(20)))
    assert asked == 1 and all(r.error is None for r in readings)
    assert (await board.read("b")).error == "it does not answer"
    assert "does not answer within" in ((await board.read("c")).error or "")
    board.ended("a")
    await board.read("a")
    assert asked == 2


async def test_a_class_that_starts_shares_readings_and_the_next_one_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def counted() -> Reading:
        nonlocal asked
        asked += 1
        return Reading((node(1),))

    board = CapacityBoard({"a": counted})
    for _ in range(20):
        await board.read("a")
        board.started("a")
    assert asked == 1
    board.ended("a")  # asks at once, too early to see what was started
    await board.read("a")
    assert asked == 2
    board.started("a")
    monkeypatch.setattr("hybridspawner.capacity.SHOWS_AFTER", 0.0)
    monkeypatch.setattr(board, "_outdated", {})
    board.started("a")
    await board.read("a")
    assert asked == 3


async def test_nobody_waits_long_for_a_target_that_is_slow() -> None:
    answer, free = asyncio.Event(), 3

    async def slow() -> Reading:
        await answer.wait()
        return Reading((node(free),))

    board = CapacityBoard({"a": slow}, fresh=0, hurry=0.01)
    assert (await board.read("a")).error == "it has not answered yet"
    answer.set()
    seen = await board.read("a")
    assert seen.error is None and seen.gpus() == {"": (3, 4)}
    answer.clear()
    assert (await board.read("a")).read_at == seen.read_at  # the old reading, with its age, while the query goes on
    answer.set()
    free = 1
    await asyncio.sleep(0)
    assert (await board.read("a")).gpus() == {"": (1, 4)}
