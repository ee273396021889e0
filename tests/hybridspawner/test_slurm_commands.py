"""Slurm's commands are executed, not given to a shell; scripts and secrets travel on stdin."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridspawner.targets.slurm.cli import LAUNCHER, CommandLine
from hybridspawner.targets.slurm.client import SlurmUnavailable, Submission, SubmitRefused


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory with an sbatch that writes down how it was called, and a squeue that cannot reach its controller."""
    record = tmp_path / "seen"
    (tmp_path / "sbatch").write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(record)!r}, 'w').write(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()]))\n"
        "sys.exit('sbatch: error: invalid partition specified: x') if os.environ.get('FAIL') else print(7)\n"
    )
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1\n"
    )
    for program in ("sbatch", "squeue"):
        (tmp_path / program).chmod(0o755)
    return tmp_path


async def test_script_and_secrets_are_on_stdin_and_in_the_environment_only(commands: Path) -> None:
    client = CommandLine("hub", str(commands))
    job = Submission(
        "#!/bin/bash\n", {"JUPYTERHUB_API_TOKEN": "very-secret", "SBATCH_ACCOUNT": "x"}, "ada", "mark", "/home/a b;c"
    )
    assert await client.submit(job) == "7"
    argv, environment, stdin = json.loads((commands / "seen").read_text())
    assert argv == ["--parsable", "--comment=mark", "--chdir=/home/a b;c"]
    assert stdin == "#!/bin/bash\n" and environment["JUPYTERHUB_API_TOKEN"] == "very-secret"
    assert "SBATCH_ACCOUNT" not in environment  # sbatch would take it as an option


async def test_a_refusal_is_not_silence(commands: Path) -> None:
    client = CommandLine("hub", str(commands))
    with pytest.raises(SubmitRefused, match="invalid partition"):
        await client.submit(Submission("#!/bin/bash\n", {"FAIL": "1"}, "ada", "mark", "/"))
    with pytest.raises(SlurmUnavailable, match="Unable to contact"):
        await client.queue()
    with pytest.raises(SlurmUnavailable):
        await CommandLine("hub", "/nowhere").marked("mark")


async def test_a_command_that_hangs_is_silence(commands: Path) -> None:
    (commands / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(SlurmUnavailable, match="did not answer"):
        await CommandLine("hub", str(commands), timeout=0.5).queue()


def launch(request: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", str(LAUNCHER)]
    return subprocess.run(argv, input=json.dumps(request), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["#0", "-u", "root", "", "ada\nroot", "%wheel", "a b", "ada;id"])
async def test_nobody_is_called_so(name: str, commands: Path) -> None:
    """sudo would take #0 for root; nothing is run at all."""
    client = CommandLine("user", str(commands))
    with pytest.raises(SubmitRefused, match="no account"):
        await client.submit(Submission("#!/bin/bash\n", {}, name, "mark", "/"))
    assert await client.tail("/etc/shadow", name, 1) == ""


def test_the_launcher_runs_slurm_s_commands_and_nothing_else() -> None:
    done = launch({"argv": ["sh", "-c", "echo hello"]})
    assert done.returncode == 126 and "hello" not in done.stdout
    assert launch([]).returncode == 1 and launch({"argv": []}).returncode == 1


def test_a_request_that_comes_too_late_runs_nothing(commands: Path) -> None:
    request = {"argv": ["sbatch"], "path": str(commands), "environment": {"PATH": "/nowhere"}, "stdin": "#!/bin/sh\n"}
    done = launch({**request, "before": time.time() - 1})
    assert done.returncode == 1 and "timed out" in done.stderr and not (commands / "seen").exists()
    assert launch({**request, "before": time.time() + 30}).stdout == "7\n"


def test_a_command_ends_when_its_time_is_up(commands: Path) -> None:
    (commands / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    done = launch({"argv": ["squeue"], "path": str(commands), "before": time.time() + 0.5})
    assert done.returncode == 1 and "socket timed out" in done.stderr


async def test_every_request_is_counted(commands: Path) -> None:
    calls: list[tuple[str, bool]] = []
    client = CommandLine("hub", str(commands), on_call=lambda verb, seconds, answered: calls.append((verb, answered)))
    await client.submit(Submission("#!/bin/bash\n", {}, "ada", "mark", "/"))
    with pytest.raises(SubmitRefused):
        await client.submit(Submission("#!/bin/bash\n", {"FAIL": "1"}, "ada", "mark", "/"))
    with pytest.raises(SlurmUnavailable):
        await client.queue()
    assert calls == [("submit", True), ("submit", True), ("queue", False)]


def test_the_launcher_reads_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 100 + "the end")
    assert launch({"tail": str(log), "bytes": 7}).stdout == "the end"
    assert launch({"tail": str(tmp_path / "none"), "bytes": 7}).returncode == 1
