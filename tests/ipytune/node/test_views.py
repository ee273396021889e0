"""Pictures of a node hold what was found, and nothing that a device's name could smuggle in."""

from __future__ import annotations

from importlib.resources import files
from xml.etree import ElementTree

from ipytune.node import topology, views
from ipytune.node.topology import Links, Node, NumaNode


def test_the_matrix_has_a_cell_a_pair_and_explains_its_words() -> None:
    links = topology.parse_links((files("ipytune.node") / "samples/gh200-topo.txt").read_text(encoding="utf-8"))
    assert links is not None
    shown = views.links_table(links)
    assert shown.count("<td") == 64 and "NV6" in shown and "NIC0 (cxi0)" in shown
    assert "NVLink, with the number of links" in shown and "PXB" not in shown


def test_names_are_escaped() -> None:
    links = Links(("NIC0",), {("NIC0", "NIC0"): "X"}, (), {"NIC0": "<b>"})
    assert "<b>" not in views.links_table(links)
    assert "<i>" not in views.table(["<i>"], [["<i>"]])


def test_a_node_tells_memory_with_and_without_cores() -> None:
    numa = (NumaNode(0, (0, 1), 2**30, 0), NumaNode(4, (), 2**30, 0))
    shown = views.node_table(Node("aarch64", "Grace", 65536, 2, (("L1d", 65536),), numa, None, ()))
    assert "1 with cores, 1 without" in shown and "64 KiB" in shown


def test_a_curve_is_drawn_over_the_logarithm_of_sizes() -> None:
    shown = views.curve({"a": [(1e3, 1.0), (1e6, 3.0)]}, "10^x bytes", "triad", {"L2": 1e4, "far": 1e9})
    picture = ElementTree.fromstring(shown)
    assert len(picture.findall("circle")) == 2
    assert "L2" in shown and "far" not in shown
