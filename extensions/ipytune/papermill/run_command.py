"""What `ipytune run` does: checks a notebook and its parameters, runs it with one of our engines, says how it ended.

Nothing is started before all that was given has been checked. The exit status is papermill's: 0, 1 for a cell that
failed or a run that could not begin, 138 for a kernel that died, 143 after SIGTERM, 130 after Ctrl-C. What failed is
said in a few lines, and in one how to go on.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillException, PapermillExecutionError
from papermill.utils import nb_kernel_name, nb_language

from ipytune.batch import parameters as declared_parameters
from ipytune.batch.parameters import ParameterError
from ipytune.papermill.errors import SettingsError
from ipytune.papermill.resume import PLACE, CannotResume
from ipytune.papermill.settings import gather, hub_is_named

DEAD = 138


class BadRequest(Exception):
    """Something that was given cannot be used; the message says what and how to mend it."""


@dataclass(frozen=True)
class Request:
    """As given on the command line. place: the engine's keywords of a hub, only those given."""

    notebook: Path
    output: Path
    pairs: Sequence[tuple[str, str]] = ()
    texts: Sequence[tuple[str, str]] = ()
    files: Sequence[Path] = ()
    yaml: Sequence[str] = ()
    engine: str | None = None
    resume: bool = False
    state: bool = True
    cwd: Path | None = None
    place: Mapping[str, str] = field(default_factory=dict)


def run(request: Request, again: Sequence[str]) -> int:
    """Runs it and returns the exit status. again: the words of this command line, for the line that goes on with it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("ipytune.papermill").setLevel(logging.INFO)
    try:
        engine = _engine(request)
        parameters, place = _parameters(request, engine)
        _check_paths(request, engine)
        settings = place if engine == "hub" else {}
        if engine == "hub":
            gather(settings, {}, os.environ)  # before an output that is there is overwritten
        papermill.execute_notebook(
            _plain(request.notebook),
            _plain(request.output),
            parameters=parameters,
            engine_name=engine,
            progress_bar=sys.stderr.isatty(),
            # the kernel of a session has a directory of its own: `hub` is told, papermill goes nowhere
            cwd=str(request.cwd) if request.cwd and engine != "hub" else None,
            resume=request.resume,
            state=request.state,
            **settings,
        )
    except PapermillExecutionError as error:
        _tell(f"{error.ename}: {error.evalue}".strip(), *(line for line in str(error).strip().splitlines()[-15:]))
        return _go_on(again, 1)
    except DeadKernelError:
        _tell("The kernel died: its memory may have been too small, or a library ended it.")
        return _go_on(again, DEAD)
    except KeyboardInterrupt:
        _tell("Interrupted.")
        return _go_on(again, 130)
    except SystemExit as error:
        _tell("Asked to end, as a scheduler does before the walltime is over. What was finished is saved.")
        return _go_on(again, error.code if isinstance(error.code, int) else 1)
    except (BadRequest, CannotResume, ParameterError, SettingsError) as error:
        _tell(str(error))
        return 1
    except NoSuchKernel as error:
        _tell(f"The notebook wants the kernel {error.name!r}, which is not installed here: jupyter kernelspec list.")
        return 1
    except (OSError, RuntimeError) as error:  # a full disk, a kernel that does not start
        _tell(str(error))
        return _go_on(again, 1)
    except PapermillException as error:
        _tell(str(error))
        return _go_on(again, 1) if request.output.exists() else 1
    return 0


def _engine(request: Request) -> str:
    if request.engine not in (None, "hub", "resumable"):
        raise BadRequest(f"--engine {request.engine}: hub or resumable is expected.")
    if request.engine:
        return request.engine
    return "hub" if "hub_url" in request.place or hub_is_named(os.environ) else "resumable"


def _check_paths(request: Request, engine: str) -> None:
    if request.cwd and engine != "hub" and not request.cwd.is_dir():
        raise BadRequest(f"--cwd {request.cwd} is no directory.")
    if not request.output.parent.is_dir():
        raise BadRequest(f"There is no directory {request.output.parent} for the output. Make it first.")
    if request.output.resolve() == request.notebook.resolve():
        raise BadRequest(f"{request.output} is the notebook itself: name another output, it would be overwritten.")
    if not os.access(request.output.parent, os.W_OK):
        raise BadRequest(f"The directory {request.output.parent} cannot be written.")


def _parameters(request: Request, engine: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters for the notebook, checked against its cell, and what is for the hub."""
    defaults = declared_parameters.declared(_notebook(request.notebook))
    given: dict[str, Any] = {}
    for file in request.files:
        given |= _mapping(_text(file), str(file))
    for text in request.yaml:
        given |= _mapping(text, "--parameters-yaml")
    for name, value in request.pairs:
        own = name in defaults or name not in PLACE
        given[name] = declared_parameters.typed(value, defaults.get(name)) if own else value
    given |= dict(request.texts)
    place = dict(request.place)
    for name in PLACE & set(given) - set(defaults):
        if engine != "hub":
            raise BadRequest(f"{name} says where a hub runs the notebook: give --hub, or leave it out.")
        place.setdefault(name, given.pop(name))
    return {name: declared_parameters.check(name, value, defaults) for name, value in given.items()}, place


def _notebook(path: Path) -> nbformat.NotebookNode:
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise BadRequest(f"There is no notebook {path}.") from None
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # nbformat raises its own, json's and jsonschema's
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadRequest(f"{path} is no notebook: {why[:200]}") from None
    try:
        nb_kernel_name(notebook)
        nb_language(notebook)
    except ValueError:
        raise BadRequest(f"{path} does not name its kernel: open it in JupyterLab, choose one and save it.") from None
    return notebook


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRequest(f"The parameters file {file} cannot be read: {reason}.") from None


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        found = declared_parameters.from_yaml(text)
    except Exception as error:  # every kind of YAML's errors
        why = (str(error).strip().splitlines() or [""])[0]
        raise BadRequest(f"{where} is not YAML: {why[:200]}") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise BadRequest(f"{where}: names and values are expected, as in MAX_STEPS: 60.")
    return found


def _plain(path: Path) -> str:
    """papermill fills {placeholders} of a path; ours are only names."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _go_on(again: Sequence[str], status: int) -> int:
    words = [*again, *(["--resume"] if "--resume" not in again else [])]
    print(f"Go on after the last finished cell: {shlex.join(words)}", file=sys.stderr)
    return status


def _tell(what: str, *lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)
    print(f"ipytune: {what}", file=sys.stderr)
