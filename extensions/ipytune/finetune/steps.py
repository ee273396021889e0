"""The steps before a run begins: its settings, what the data holds, what memory it needs. Knows no widget.

Each step answers for the settings of the moment and keeps its answer; whether that still holds is asked for
(`current_look`), since settings may change while a step is at work in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ipytune.data.findings import DatasetError
from ipytune.finetune import form
from ipytune.finetune.draft import Draft
from ipytune.finetune.look import Columns, Look, columns, first_words, look
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.memory.advice import Fit
from ipytune.memory.check import check
from ipytune.memory.probe import Probe, probe
from ipytune.runs import Run

TEXT_BYTES = 50_000_000  # larger data files are read when they are checked, not while their name is typed
_LOOKED_AT = {"train_file", "eval_file", "model", "data", "max_length", "row_tokens", "batch_size", "seed"}


class Steps:
    """draft: the settings as they stand.   columns: of the training data, as far as they are known.
    looked, fit: what was found, and for which settings.   probed: what one step took.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.columns: Columns | None = None
        self.looked: tuple[RunConfig, Look] | None = None
        self.fit: tuple[RunConfig, Fit] | None = None
        self.probed: Probe | None = None
        self._lock = threading.RLock()

    @property
    def config(self) -> RunConfig:
        """The settings as they stand. Raises ConfigError naming what is wrong or missing."""
        try:
            return self.draft.config
        except ValidationError:
            wrong = "; ".join(f"{form.label(name)}: {words}" for name, words in self.draft.errors.items())
            raise ConfigError(f"The settings are not complete. {wrong}.") from None

    @property
    def current_look(self) -> Look | None:
        """What was found in the data, if it was looked at with the settings as they are."""
        if self.looked is None or self.draft.errors:
            return None
        now = self.draft.config.model_dump(include=_LOOKED_AT)
        return self.looked[1] if self.looked[0].model_dump(include=_LOOKED_AT) == now else None

    @property
    def fits_now(self) -> bool:
        """Whether memory was estimated, for the settings as they are."""
        return self.fit is not None and not self.draft.errors and self.draft.config == self.fit[0]

    def set(self, name: str, value: Any) -> None:
        """Change a setting, by its path; a wrong value is kept, with its error. KeyError for a name that is none."""
        with self._lock:
            self.draft = self.draft.changed(name, value)
            if name == "train_file" and "data.columns" not in self.draft.edited:
                self.read_columns()

    def map_columns(self, names: Mapping[str, str]) -> None:
        """Set which of the file's columns ours are; an empty name: as it is called."""
        mapped = {**(self.draft.value("data.columns") or {}), **names}
        self.set("data.columns", {ours: theirs for ours, theirs in mapped.items() if theirs and theirs != ours})

    def read_columns(self) -> None:
        """Those of the training data, if it is a file that is read in a moment."""
        file = self.draft.value("train_file")
        self.columns = None
        try:
            path = Path(str(file)).expanduser() if file else None
            if path is not None and path.is_file() and path.stat().st_size < TEXT_BYTES:
                self.columns = columns(path)
        except (ValueError, OSError):
            pass  # the check says what is wrong with the file

    def check(self) -> Look:
        """Read the data and validate it."""
        config = self.config
        found = look(config)
        if self.columns is None and config.train_file.is_file():
            self.columns = columns(config.train_file) if found.report is not None else None
        self.looked = (config, found)
        return found

    def estimate(self) -> Fit:
        """The memory that the run needs against what this session has; with what is known of the data."""
        config = self.config
        longest, learned = None, 1.0
        if (found := self.current_look) is not None and (report := found.report) and report.tokens:
            longest, learned = min(report.longest, config.max_length), report.learned_tokens / report.tokens
        fit = check(config, longest, learned)
        self.fit = (config, fit)
        return fit

    def measure(self, config: RunConfig) -> Probe:
        """Run one step of `config` in a process of its own."""
        self.probed = measured = probe(config)
        return measured

    def take_over_remedy(self) -> None:
        """Change the settings as the estimate proposes. Raises ValueError when it proposes nothing."""
        remedy = self.fit[1].remedy if self.fit is not None else None
        if remedy is None or not remedy.settings:
            raise ValueError("There is no change to take over.")
        for name, value in remedy.settings.items():
            self.draft = self.draft.changed(name, value)

    def first_words(self, run: Run) -> tuple[str, str]:
        """To ask base and tuned model at first; empty when the data is no longer there."""
        if self.looked is not None:
            return self.looked[1].system, self.looked[1].question
        try:
            return first_words(run.config)
        except (DatasetError, ConfigError, OSError):
            return "", ""


def differing(given: Draft, run: Run) -> str:
    """The settings in which what was given differs from a run's, in words."""
    try:
        wanted = given.config.pinned()
    except (ValidationError, ConfigError) as error:
        return str(error)
    changed = run.config.differences(wanted)
    return ", ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in changed.items())
