"""The choice of a target: what can start now, then the order of the site file; always with its reason."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.capacity import Capacity, CapacityBoard, Fit, NodeCapacity, Reading
from hybridspawner.placement import NoTarget, place
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
    assert "no answer" in ((await board.read("c")).error or "")
    board.forget("a")
    await board.read("a")
    assert asked == 2
