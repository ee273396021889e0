"""The runner itself, with notebooks of a line or two: what passes, what is found out about what does not."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import psutil
import pytest

import tests.notebooks.__main__ as runner

METRICS = """\
import json, pathlib
out = pathlib.Path({name!r})
out.mkdir()
(out / "metrics.json").write_text(json.dumps({{"n": 1}}))
"""
ONCE = """\
import pathlib
once = pathlib.Path({file!r})
if not once.exists():
    once.touch()
    1 / 0
"""
SKIP = "- {{notebook: {name}, profile: smoke, reason: for this test, expires: {expires}}}"


def write(folder: Path, name: str, source: str, seconds: int = 60) -> None:
    cells = [
        nbformat.v4.new_code_cell('PROFILE = "full"', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(METRICS.format(name=name)),
        nbformat.v4.new_code_cell(source),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    expected = {"seconds": seconds, "memory_gb": 4, "cores": 1, "metrics": {"n": {"equals": 1}}}
    (folder / f"{name}.expect.yaml").write_text(json.dumps(expected))


@pytest.mark.timeout(240)
def test_each_is_run_judged_and_shown_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, gallery = tmp_path / "set", tmp_path / "out", tmp_path / "gallery"
    folder.mkdir()
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)
    monkeypatch.setattr(runner, "findings_of_structure", lambda notebook, name: [])
    monkeypatch.setattr(runner, "prepare_model", lambda: None)
    write(folder, "01-good", "assert PROFILE == 'smoke'\nprint('all well')")
    leaving = "import subprocess\nleft = subprocess.Popen(['sleep', '4711'], start_new_session=True)"
    showing = "import os\nprint(os.environ['OBERALP_CANARY_TOKEN'], os.environ['HOME'])"
    write(folder, "02-bad", f"{leaving}\n{showing}")
    write(folder, "03-skipped", "")
    write(folder, "04-unsteady", ONCE.format(file=str(tmp_path / "once")))
    (folder / "skip.yaml").write_text(SKIP.format(name="03-skipped", expires="2999-01-01"))

    assert runner.main(["--out", str(out), "--gallery", str(gallery), "--again", "1"]) == 1

    printed = capsys.readouterr().out
    assert "2 passed, 1 failed, 1 skipped" in printed and "passed when tried again: 04-unsteady" in printed
    good, bad, skipped, unsteady = json.loads((out / "results.json").read_text())["notebooks"]
    assert (good["state"], good["findings"], good["metrics"]) == ("passed", [], {"n": 1})
    assert good["seconds"] > 0 and good["memory_gb"] > 0.05
    assert bad["state"] == "failed"
    for said in ("a secret of the environment", "an absolute path", "left a process behind: sleep 4711"):
        assert any(said in finding for finding in bad["findings"]), bad["findings"]
    assert skipped["state"] == "skipped" and unsteady["unsteady"]
    assert not any(process.info["cmdline"] == ["sleep", "4711"] for process in psutil.process_iter(["cmdline"]))
    assert "all well" in (gallery / "01-good.html").read_text()
    assert "left a process behind" in (gallery / "index.html").read_text()
    assert sorted(path.name for path in out.iterdir())[:2] == ["01-good.ipynb", "01-good.log"]
    assert not list(out.glob("runs-*"))


def test_an_expired_skip_and_a_broken_shape_fail_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path)
    write(tmp_path, "01-expired", "")
    write(tmp_path, "02-broken", "")
    (tmp_path / "skip.yaml").write_text(SKIP.format(name="01-expired", expires="2020-01-01"))
    names = ["01-expired", "02-broken"]
    outcomes, expected = runner.look([tmp_path / f"{name}.ipynb" for name in names], names, "smoke")
    assert expected == {}
    assert outcomes["01-expired"].findings == ["its skip expired on 2020-01-01: for this test"]
    assert any("fewer than four code cells" in finding for finding in outcomes["02-broken"].findings)
