"""Slurm's answers as states: alive until an end is named, and the end in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.runs.launch import slurm_answers
from ipytune.runs.launch.slurm_answers import FORGOTTEN, SILENT, JobState


@pytest.mark.parametrize(
    ("code", "output", "error", "expected"),
    [
        (0, "PENDING|Priority\n", "", JobState("PENDING", "Priority")),
        (0, "RUNNING|None\n", "", JobState("RUNNING")),
        (0, "", "", None),
        (1, "", "slurm_load_jobs error: Invalid job id specified\n", None),
        (1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", JobState(SILENT)),
        (127, "", "squeue is not on this machine's PATH", JobState(SILENT)),
    ],
)
def test_squeue(code: int, output: str, error: str, expected: JobState | None) -> None:
    assert slurm_answers.squeue(code, output, error) == expected


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "COMPLETED|0:0\n", JobState("COMPLETED", exit_code=0)),
        (0, "CANCELLED by 1000|0:15\n", JobState("CANCELLED", exit_code=143)),
        (0, "FAILED|1:0\n", JobState("FAILED", exit_code=1)),
        (0, "", JobState(FORGOTTEN)),
        (1, "Slurm accounting storage is disabled\n", JobState(FORGOTTEN)),
    ],
)
def test_sacct(code: int, output: str, expected: JobState) -> None:
    assert slurm_answers.sacct(code, output) == expected


@pytest.mark.parametrize(
    ("state", "alive", "words"),
    [
        (JobState("PENDING", "Resources"), True, "waiting: Resources"),
        (JobState("COMPLETING"), True, "completing"),
        (JobState("SUSPENDED"), True, "suspended"),
        (JobState("A_STATE_OF_2030"), True, "a_state_of_2030"),
        (JobState(SILENT), True, "Slurm does not answer"),
    ],
)
def test_what_is_not_proved_ended_is_alive(state: JobState, alive: bool, words: str) -> None:
    assert (state.alive, state.words()) == (alive, words)


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (JobState("TIMEOUT"), "reached its walltime"),
        (JobState("OUT_OF_MEMORY"), "ran out of memory (lower row_tokens, or ask for more memory_per_node)"),
        (JobState("FAILED", exit_code=137), "failed with exit code 137"),
        (JobState("CANCELLED"), "was cancelled"),
        (JobState(FORGOTTEN), "is no longer known to Slurm"),
    ],
)
def test_an_end_in_words(state: JobState, ending: str) -> None:
    assert not state.alive
    assert state.ending() == ending


def test_a_job_number_is_found_or_refused() -> None:
    assert slurm_answers.job_id("12\n") == "12"
    assert slurm_answers.job_id("sbatch: a site's greeting\n4711;alps\n") == "4711"
    with pytest.raises(ValueError, match="printed no job number"):
        slurm_answers.job_id("Submitted batch job\n")


@given(st.integers(-1, 255), st.text(), st.text())
def test_any_answer_is_understood_somehow(code: int, output: str, error: str) -> None:
    for state in (slurm_answers.squeue(code, output, error), slurm_answers.sacct(code, output)):
        assert state is None or isinstance(state.alive, bool)
