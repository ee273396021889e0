"""The first task's data: reproducible, consistent, and honest about what is held out."""

from __future__ import annotations

import random
from pathlib import Path

import ipytune.data.slurm_headers as package
from ipytune.data.slurm_headers.generate import Job, conversations, examples, header, wording
from ipytune.data.validate import load

FOLDER = Path(package.__file__).parent


def test_a_header_lists_what_was_asked_in_fixed_order() -> None:
    job = Job(2, 4, 90, partition="normal", memory_gb=64, account="g12", reservation=None)
    assert header(job) == (
        "#SBATCH --nodes=2\n#SBATCH --gpus-per-node=4\n#SBATCH --time=01:30:00\n#SBATCH --partition=normal\n"
        "#SBATCH --mem=64G\n#SBATCH --account=g12"
    )


def test_held_out_combinations_never_occur_in_training() -> None:
    train, held_out = examples()
    assert len(held_out) >= 100
    assert not {job.combination for job in train} & {job.combination for job in held_out}


def test_each_value_of_a_held_out_combination_occurs_in_training() -> None:
    train, held_out = examples()
    for field in ("nodes", "gpus", "minutes", "partition", "memory_gb", "account", "reservation"):
        assert {getattr(job, field) for job in held_out} <= {getattr(job, field) for job in train}


def test_the_shipped_files_are_what_the_generator_makes() -> None:
    dataset = load(FOLDER / "train.jsonl", FOLDER / "heldout.jsonl")
    train, held_out = conversations()
    assert dataset.warnings == []
    assert [example.as_dicts() for example in dataset.train] == [one["messages"] for one in train]
    assert [example.as_dicts() for example in dataset.held_out] == [one["messages"] for one in held_out]


def test_no_request_occurs_twice() -> None:
    train, held_out = conversations()
    requests = [one["messages"][1]["content"] for one in train + held_out]
    assert len(set(requests)) == len(requests)


def test_a_request_names_every_part_of_its_job() -> None:
    job = Job(6, 3, 720, "debug", 120, "ml01", "school")
    for seed in range(50):
        text = wording(random.Random(seed), job).lower()
        assert all(part in text for part in ("debug", "120", "school", "ml01")), text
        assert "6" in text or "six" in text
