"""A lesson checks before anything else, and its numbers can be read by a program."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest

from ipytune.lesson import Lesson, ParameterError, choice, folder, integer
from ipytune.lesson.numbers import plain

KINDS = {"PROFILE": choice("smoke", "gpu"), "SEED": integer(0), "OUT_DIR": folder()}


def lesson(folder_: Path, **changed: Any) -> Lesson:
    return Lesson("00-example", {"PROFILE": "smoke", "SEED": 0, "OUT_DIR": str(folder_ / "out"), **changed})


def test_what_passes_prints_one_table_and_makes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = lesson(tmp_path)
    made.check(**KINDS, packages=("yaml",), gpus={"gpu": 1})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "00-example, profile smoke"
    assert [line.split()[0] for line in lines[1:]] == ["versions", "cores", "memory", "GPUs", "results"]
    assert made.smoke and made.out.is_dir() and made.pick(smoke=1, gpu=2) == 1
    with pytest.raises(KeyError, match="smoke"):
        made.pick(gpu=2)


def test_everything_wrong_is_said_at_once_and_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipytune.lesson.surroundings.available", without_gpus)
    made = lesson(tmp_path, PROFILE="gpu", SEED="x", SEDE=1)
    with pytest.raises(ParameterError) as caught:
        made.check(**KINDS, packages=("absent_package",), gpus={"gpu": 1}, disk_gb=10**9)
    text = str(caught.value)
    for part in ("SEDE: no parameter", "SEED = 'x'", "Not installed: absent_package", "needs 1 GPU", "GB are free"):
        assert part in text
    assert len(caught.value.findings) == 5
    assert not (tmp_path / "out").exists()
    with pytest.raises(RuntimeError, match="lesson.check"):
        made.metrics(loss=1.0)


def without_gpus() -> object:
    from ipytune.memory.available import Available, Limit

    return Available((Limit("all", 8 * 10**9, 10**9),))


def test_the_numbers_name_what_they_depend_on(tmp_path: Path) -> None:
    made = lesson(tmp_path, SEED=3)
    made.check(**KINDS)
    made.metrics(loss=numpy.float32(0.5), curve=numpy.arange(3), run={"path": Path("a/b"), "good": numpy.bool_(True)})
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"notebook", "profile", "parameters", "seconds", "versions", "hardware"} < set(written)
    assert written["parameters"]["SEED"] == 3 and written["versions"]["python"]
    assert written["loss"] == 0.5 and written["curve"] == [0, 1, 2] and written["run"] == {"path": "a/b", "good": True}
    with pytest.raises(ValueError, match="loss is nan"):
        made.metrics(loss=float("nan"))
    with pytest.raises(ValueError, match=r"run\.parts\[1\] is inf"):
        made.metrics(run={"parts": [1.0, float("inf")]})
    with pytest.raises(ValueError, match="seconds"):
        made.metrics(seconds=3)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == written, "a refused one left the last"


def test_a_run_that_goes_on_elsewhere_takes_its_lesson_along(tmp_path: Path) -> None:
    namespace = {"OUT_DIR": str(tmp_path / "out"), "connection": threading.Lock()}
    lesson = Lesson("02-lora-in-depth", namespace)
    lesson.check(OUT_DIR=folder())
    restored = pickle.loads(pickle.dumps(lesson))
    assert restored.out == tmp_path / "out"
    restored.metrics(loss=1.0)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["seconds"] >= 0


def test_an_object_is_no_number() -> None:
    with pytest.raises(TypeError, match="run is of type object"):
        plain(object(), "run")


def test_the_check_needs_no_torch() -> None:
    code = "import sys, ipytune.lesson; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
