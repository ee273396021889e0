"""`ipytune serve` and `ipytune adapters`: sentences and exit codes for what cannot be done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipytune.endpoints.serve_command import app

run = CliRunner()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "/no/such/model"], "/no/such/model"),
        (["serve", "--adapter", "first"], "NAME=PATH"),
        (["serve", "--run-dir", "/no/such/run"], "holds no adapter"),
        (["adapters", "load", "/no/such/run", "--endpoint", "nobody-knows"], "nobody-knows"),
        (["adapters", "unload", "first", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "cannot be reached"),
        (["adapters", "list", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "cannot be reached"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_exit_code_1(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = run.invoke(app, words)
    assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from ipytune.endpoints.serve_command import app\n"
        "assert CliRunner().invoke(app, ['serve', '--help']).exit_code == 0\n"
        "assert not {'torch', 'transformers', 'IPython', 'vllm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
