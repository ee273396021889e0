"""The pure parts of the private Slurm: hosts file, specification, configuration texts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clusters.slurm.config import gres_conf, slurm_conf, slurmdbd_conf
from tests.clusters.slurm.hosts import with_block, without_block
from tests.clusters.slurm.spec import Layout, Ports, Record, SlurmSpec

LINES = st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e"))).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)
LAYOUT = Layout(Path("/somewhere/state"))


@given(LINES)
def test_removing_a_block_restores_the_hosts_file(text: str) -> None:
    assert without_block(with_block(text, "a", ["nid000001"]), "a") == text


@given(LINES)
def test_blocks_of_two_clusters_are_independent(text: str) -> None:
    both = with_block(with_block(text, "a", ["nid000001"]), "b", ["nid000001"])
    assert without_block(both, "a") == with_block(text, "b", ["nid000001"])
    assert without_block(without_block(both, "a"), "b") == text


def test_a_block_written_twice_is_there_once() -> None:
    once = with_block("127.0.0.1 localhost\n", "a", ["nid000001"])
    assert with_block(once, "a", ["nid000001"]) == once
    assert "127.0.0.1 nid000001\n" in once


def test_a_block_without_its_end_is_left_alone() -> None:
    broken = with_block("", "a", ["nid000001"]).replace("# oberalp test cluster a: end\n", "10.0.0.1 precious\n")
    assert without_block(broken, "a") == broken


def test_a_record_survives_the_disk() -> None:
    record = Record(SlurmSpec(2, 1, rest=True), Ports.from_base(20_000))
    assert Record.from_json(record.to_json()) == record


def test_the_rest_api_brings_accounting_with_it() -> None:
    assert SlurmSpec(rest=True).dbd


def test_limits_are_enforced_where_they_are_asked_for() -> None:
    assert SlurmSpec(limits=True).dbd
    enforced = "AccountingStorageEnforce=associations,limits,qos"
    for spec in (SlurmSpec(limits=True), SlurmSpec(dbd=True)):
        assert (enforced in slurm_conf(spec, Ports.from_base(20_000), LAYOUT, "host")) is spec.limits


@pytest.mark.parametrize("size", [{"nodes": 0}, {"nodes": 1001}, {"gpus": -1}, {"gpus": 65}])
def test_impossible_sizes_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        SlurmSpec(**size)  # type: ignore[arg-type]


def test_each_node_has_its_port_and_its_gpus() -> None:
    spec = SlurmSpec(nodes=4, gpus=4)
    conf = slurm_conf(spec, Ports.from_base(20_000), LAYOUT, "host")
    assert "NodeName=nid[000001-000004] NodeHostname=host NodeAddr=127.0.0.1 Port=[20004-20007]" in conf
    assert "RealMemory=870000 Gres=gpu:gh200:4\n" in conf
    assert "MaxTime=12:00:00" in conf and "MaxTime=00:30:00" in conf
    assert gres_conf(spec, LAYOUT).endswith("File=/somewhere/state/dev/gpu[0-3]\n")


def test_nodes_without_gpus_declare_none() -> None:
    spec = SlurmSpec(gpus=0)
    assert "gpu" not in slurm_conf(spec, Ports.from_base(20_000), LAYOUT, "host")
    assert gres_conf(spec, LAYOUT) == ""


def test_the_databases_password_is_in_slurmdbds_file_only() -> None:
    spec, ports = SlurmSpec(rest=True), Ports.from_base(20_000)
    assert "StoragePass=hunter2" in slurmdbd_conf(spec, ports, LAYOUT, "hunter2")
    assert "hunter2" not in slurm_conf(spec, ports, LAYOUT, "host")
