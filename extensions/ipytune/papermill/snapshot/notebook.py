"""What a notebook's state is: its variables, and what cells change around them. That is the environment and the import
path, of which the last state counts, and the moment: working directory and random numbers, known for every cell."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HISTORY = re.compile(r"_+|_i+|_i?\d+|__.*")
_OF_THE_SHELL = {"In", "Out", "get_ipython", "exit", "quit", "open"}
_SET_BY_LIBRARIES = {"COLUMNS", "LINES", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "TORCHINDUCTOR_CACHE_DIR"}

Moment = tuple[str, dict[str, Any]]
"""Working directory, and the random states by the library that draws from them. Pickled with the variables."""


def shell() -> Any:
    """IPython's shell in this kernel."""
    from IPython import get_ipython

    return get_ipython()


def namespace() -> dict[str, Any]:
    """The globals of the notebook."""
    found: dict[str, Any] = shell().user_ns
    return found


class Baseline:
    """The kernel as it was before any cell. What is otherwise later, cells have made."""

    def __init__(self) -> None:
        self._path, self._environ, self._names = list(sys.path), dict(os.environ), dict(namespace())

    def variables(self) -> dict[str, Any]:
        """By name, without the shell's own and without its history."""
        hidden = shell().user_ns_hidden
        return {
            name: value
            for name, value in list(namespace().items())
            if not _HISTORY.fullmatch(name)
            and name not in _OF_THE_SHELL
            and not (name in hidden and (not isinstance(hidden, dict) or hidden[name] is value))
            and not (name in self._names and self._names[name] is value)
        }

    def environ(self) -> dict[str, str]:
        """Environment variables that are new or changed, but for those that libraries set on their own."""
        return {
            name: value
            for name, value in os.environ.items()
            if self._environ.get(name) != value and name not in _SET_BY_LIBRARIES
        }

    def path(self) -> list[str]:
        """New entries of `sys.path`."""
        return [entry for entry in sys.path if entry not in self._path]


def moment() -> Moment:
    """Now."""
    return str(Path.cwd()), _random_states()


def set_moment(wanted: Moment) -> None:
    """Go back to that directory, if it is still there, and to those random numbers."""
    directory, states = wanted
    if Path(directory).is_dir():
        os.chdir(directory)
    _set_random_states(states)


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate()}
    if "numpy.random" in sys.modules:
        states["numpy"] = sys.modules["numpy.random"].get_state()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = torch.get_rng_state().numpy().tobytes()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states


def _set_random_states(states: Mapping[str, Any]) -> None:
    random.setstate(states["random"])
    if "numpy" in states:
        import numpy.random

        numpy.random.set_state(states["numpy"])
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))
        if "cuda" in states and torch.cuda.device_count() >= len(states["cuda"]):
            torch.cuda.set_rng_state_all(
                [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states["cuda"]]
            )
