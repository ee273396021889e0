"""What a scheduler is asked for: everything that passes is one harmless word, everything else is refused by name."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ipytune.cli_launch import Where, launcher
from ipytune.lora.config import explain
from ipytune.runs.launch import KubernetesJob, KubernetesSettings, Sbatch, Session, SlurmSettings
from ipytune.runs.launch.settings import seconds


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("partition", "normal --uid=0", "partition: .*letters, digits"),
        ("partition", "normal\n#SBATCH --uid=0", "partition: .*letters, digits"),
        ("account", "-A", "account: .*letters, digits"),
        ("reservation", "a,", "reservation: .*letters, digits"),
        ("qos", "$(id)", "qos: .*letters, digits"),
        ("gpu_type", "größe", "gpu_type: .*letters, digits"),
        ("walltime", "1 hour", "walltime: .*write HH:MM:SS"),
        ("walltime", "00:04:59", "walltime: .*under five minutes"),
        ("memory_per_node", "lots", "memory_per_node: .*such as 120G"),
        ("nodes", 0, "nodes: .*greater than or equal to 1"),
        ("srun_options", ["environment=x"], "srun_options: .*an option of srun"),
        ("srun_options", ["--environment=x\ny"], "srun_options: .*an option of srun"),
        ("patience", 1, "patience: Extra inputs"),
    ],
)
def test_a_bad_setting_is_refused_by_name(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        SlurmSettings.model_validate({field: value})
    assert re.search(message, explain(raised.value)), explain(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        {"image": "--privileged"},
        {"image": "a b"},
        {"claim": "My_Claim"},
        {"namespace": "../kube-system"},
        {"mount": "relative"},
        {"memory": "much"},
        {"gpu_resource": "gpu"},
    ],
)
def test_bad_kubernetes_settings_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        KubernetesSettings.model_validate({"image": "ipytune:1", "claim": "runs", **values})


@given(st.text(max_size=30))
def test_a_name_that_passes_is_one_word_that_a_shell_leaves_alone(text: str) -> None:
    try:
        name = SlurmSettings(partition=text).partition
    except ValidationError:
        return
    assert name is not None and shlex.split(name) == [name] and not name.startswith("-")


def test_walltimes_in_seconds() -> None:
    assert [seconds(text) for text in ("00:05:00", "100:00:00", "2-01:00:00")] == [300, 360_000, 176_400]


def test_one_process_a_gpu_unless_said_otherwise() -> None:
    assert SlurmSettings().processes == 1
    assert SlurmSettings(gpus_per_node=4, gpu_type="gh200").processes == 4
    assert SlurmSettings(gpus_per_node=4, gpu_type="gh200").gpus == "gh200:4"
    assert SlurmSettings(gpus_per_node=4, processes_per_node=2).processes == 2


def test_options_of_the_command_line_name_a_launcher() -> None:
    session = launcher(Where.SESSION, 2, None)
    assert isinstance(session, Session) and session.processes == 2
    batch = launcher(Where.SLURM, None, ["partition=debug", "nodes=2", "gpus-per-node=4", "srun-options=--mpi=none -v"])
    assert isinstance(batch, Sbatch)
    assert batch.settings == SlurmSettings(
        partition="debug", nodes=2, gpus_per_node=4, srun_options=("--mpi=none", "-v")
    )
    pod = launcher(Where.KUBERNETES, 2, ["image=ipytune:1", "claim=runs", "gpus=4"])
    assert isinstance(pod, KubernetesJob) and (pod.settings.trainers, pod.settings.gpus) == (2, 4)


@pytest.mark.parametrize(
    ("where", "job", "message"),
    [
        (Where.SESSION, ["partition=debug"], "is for a scheduler"),
        (Where.SLURM, ["partition"], "NAME=VALUE is expected"),
        (Where.SLURM, ["queue=debug"], "queue: Extra inputs.*Settings: walltime, name, partition"),
        (Where.KUBERNETES, ["image=ipytune:1"], "claim: Field required"),
    ],
)
def test_wrong_options_are_told_in_words(where: Where, job: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        launcher(where, None, job)
