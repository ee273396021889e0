"""A run of papermill with the engine `hub`, as a process of its own, as at night."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from tests.clusters.slurm.processes import wait_for
from tests.hub.client import User


def notebook(path: Path, *cells: str) -> Path:
    """A Python notebook of these code cells; the first holds its parameters."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(made, path)
    return path


class PapermillRun:
    """Begins at once. url: the hub, or what stands before it. resume: goes on with the output that is there, as
    `ipytune run` does. The token comes from a file, as in the guide."""

    def __init__(
        self, directory: Path, user: User, cells: list[str], *arguments: str, url: str = "", resume: bool = False
    ) -> None:
        self.user, self.directory = user, directory
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(f"{user.token}\n")
        self.output = directory / "out.ipynb"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OBERALP_", "JUPYTERHUB_"))}
        environment |= {"OBERALP_HUB": url or user.url, "OBERALP_TOKEN_FILE": str(token), "no_proxy": "*"}
        self._log = (directory / "log").open("wb")
        run = [str(notebook(directory / "nightly.ipynb", *cells)), str(self.output), "--engine", "hub"]
        command = ["ipytune", "run", "--resume"] if resume else ["papermill", "--no-progress-bar"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, *run, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # as from a terminal: whoever runs the tests in the background has it ignored, and this would inherit it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def finish(self, seconds: float = 120) -> int:
        """Wait for its end; the exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running:\n{self.log}") from None
        finally:
            self._log.close()

    def until_printed(self, text: str, seconds: float = 90) -> None:
        """Wait until a cell has printed `text`: the output is saved as it goes."""
        assert wait_for(lambda: text in self.printed or self.process.poll() is not None, seconds, 0.1), self.log
        assert text in self.printed, self.log

    @property
    def printed(self) -> str:
        """What the cells have printed, so far as the output file has it."""
        return "".join(o.get("text", "") for cell in self.cells for o in cell.get("outputs", ()))

    @property
    def cells(self) -> list[Any]:
        try:
            return list(nbformat.read(self.output, as_version=4).cells)
        except (OSError, ValueError, nbformat.reader.NotJSONError):  # not there yet, or being written
            return []

    @property
    def statuses(self) -> list[str]:
        """Of the code cells."""
        return [cell.metadata.get("papermill", {}).get("status") for cell in self.cells if cell.cell_type == "code"]

    def sessions(self) -> list[str]:
        """The user's named sessions that the hub knows of, stopped ones included."""
        answer = self.user.api.get(f"/hub/api/users/{self.user.name}", params={"include_stopped_servers": "1"})
        return [name for name in answer.json()["servers"] if name]
