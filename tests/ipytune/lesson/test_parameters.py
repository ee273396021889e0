"""Bad parameters are named all at once, with what is allowed or what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from ipytune.lesson import (
    Kind,
    ParameterError,
    choice,
    file,
    flag,
    folder,
    integer,
    items,
    model,
    number,
    optional,
    text,
)
from ipytune.lesson.findings import finding_of_disk, finding_of_gpus, finding_of_packages, findings_of_values
from ipytune.lesson.parameters import assigned, parameters

KINDS = {"MAX_STEPS": optional(integer(1, 100)), "SEED": integer(0), "LR": number(0, 1)}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (choice("smoke", "full"), ["smoke"], ["Smoke", "", None, 1]),
        (choice(1, 2), [1], [True, 1.0, "1"]),
        (flag(), [True, False], [1, "True", None]),
        (integer(1, 3), [1, 3], [0, 4, True, 2.0, "2", None]),
        (number(0, 1), [0, 1, 0.5], [-0.1, True, float("nan"), "0.5", None]),
        (number(), [-1e300], [float("inf")]),
        (optional(integer(1, 3)), [None, 2], [0, "None"]),
        (text(), ["x"], ["", " ", 3, None]),
        (text(empty=True), [""], [3]),
        (items(integer(1, 4), 1, 3), [[1], (1, 2)], [[], [0], [1] * 4, "1,2", 1]),
    ],
)
def test_a_kind_takes_its_own_values_only(kind: Kind, good: list[object], bad: list[object]) -> None:
    assert [kind.complaint(value) for value in good] == [None] * len(good)
    assert all(kind.complaint(value) for value in bad)


def test_what_is_allowed_is_said() -> None:
    assert optional(integer(1, 3)).complaint("x") == "allowed is None or a whole number from 1 to 3."
    assert integer(2).complaint(1) == "allowed is a whole number, 2 or more."
    assert "-y or -f" in (items(text()).complaint("[1]") or "")


def test_files_and_folders_are_looked_at(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.touch()
    assert file(".jsonl").complaint(str(data)) is None
    assert "no such file" in (file().complaint(str(tmp_path / "absent")) or "")
    assert ".csv" in (file(".csv").complaint(str(data)) or "")
    assert folder().complaint(str(tmp_path / "new" / "deep")) is None
    assert "is a file" in (folder().complaint(str(data / "deep")) or "")
    assert "no such folder" in (folder(exists=True).complaint(str(tmp_path / "absent")) or "")
    assert folder().complaint(3)


def test_a_model_is_looked_for_where_models_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IPYTUNE_MODELS", str(tmp_path))
    complaint = model().complaint
    assert "hf download org/tiny" in (complaint("org/tiny") or "")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    assert complaint("org/tiny") is None and complaint(str(tmp_path / "tiny")) is None
    assert "'smollm2-135m-instruct'" in (complaint("smollm") or "")
    assert complaint(None)


def test_unknown_names_come_with_the_nearest_and_a_request_s_fields_are_none() -> None:
    given = {"MAX_STEP": 3, "SEED": -1, "LR": 0.1, "MAX_STEPS": None, "profile": "gpu-1", "lease": "00:02:00"}
    assert findings_of_values(given, KINDS) == [
        "MAX_STEP: no parameter has this name. Did you mean MAX_STEPS?",
        "SEED = -1: allowed is a whole number, 0 or more.",
    ]
    (found,) = findings_of_values({"seed": 1, "SEED": 1, "LR": 0, "MAX_STEPS": 1}, KINDS)
    assert found == "seed: no parameter has this name. Did you mean SEED?"
    assert "There are: MAX_STEPS, SEED, LR" in findings_of_values({"zzzz": 1}, KINDS)[0]
    assert "SEED: not set" in findings_of_values({"LR": 0, "MAX_STEPS": 1}, KINDS)[0]


def test_a_machine_that_lacks_something_is_told_what_to_do() -> None:
    assert finding_of_packages(["fastapi", "peft"]) == [
        "Not installed: fastapi, peft. Remedy: pip install 'ipytune[serve]' peft, then restart the kernel."
    ]
    (found,) = finding_of_gpus("gpu", 1, 0, smoke=True)
    assert 'PROFILE = "smoke"' in found and "--engine hub -p profile gpu-1" in found
    assert "smoke" not in finding_of_gpus("full", 2, 1, smoke=False)[0]
    assert finding_of_gpus("gpu", 1, 4, smoke=True) == []
    assert "OUT_DIR" in finding_of_disk("x", 2, 0.5)[0]
    assert finding_of_packages([]) == finding_of_disk("x", 0, float("inf")) == []


def test_parameters_are_told_from_variables_of_other_cells() -> None:
    cells = [
        "# what can be changed\nSEED = 0\nLR: float = 0.1",
        "# Parameters\nMAX_STEP = 3\nprofile = 'gpu-1'",
        "import json\nSEED = 1\nother = 2",
        "%%time\nx = 1",
        "answer = 42",
    ]
    assert assigned(cells, frozenset(KINDS)) == ["SEED", "LR", "MAX_STEP", "profile"]
    namespace = {"In": cells, "SEED": 7, "LR": 0.1, "MAX_STEP": 3, "profile": "gpu-1", "answer": 42}
    assert parameters(namespace, KINDS) == {"SEED": 7, "LR": 0.1, "MAX_STEP": 3, "profile": "gpu-1"}


def test_without_a_history_every_plain_value_is_a_parameter() -> None:
    assert parameters({"SEED": 1, "_x": 2, "print": print, "seed": 3}, KINDS) == {"SEED": 1, "seed": 3}
    assert parameters({"In": [""], "Out": {}, "SEED": 1, "system": "x"}, KINDS) == {"SEED": 1}


def test_the_message_stands_alone_in_jupyter(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.user_ns["error"] = ParameterError("00-x", ["one", "two"])
    shell.run_cell("raise error")
    printed = "".join(capsys.readouterr())
    assert printed.splitlines() == ["ParameterError: 00-x cannot run like this:", "- one", "- two"]
