"""What the data holds, before any model is loaded: columns, counts, findings, the first batch as it will be learned.

It needs the tokenizer, so the first look takes some seconds; torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ipytune.data.findings import DatasetError, Finding
from ipytune.data.formats import read_records
from ipytune.data.layouts import LAYOUTS, Guess, guess
from ipytune.data.preview import Preview, preview
from ipytune.data.read import columns_of
from ipytune.data.report import Report, inspect
from ipytune.data.tokenizer import load_tokenizer, vocabulary_size
from ipytune.data.validate import Dataset, load
from ipytune.lora.config import RunConfig
from ipytune.models import SMOLLM2, resolve

PREVIEWED = 4  # conversations of the first batch that are shown
_ENTRIES, _OFFERED = 500, 50  # looked at in a directory, and offered: a home may hold a million
_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz")


@dataclass(frozen=True)
class Columns:
    """Of a data file: its columns, and what they seem to be."""

    names: tuple[str, ...]
    guessed: Guess

    def asked(self, layout: str) -> tuple[str, ...]:
        """Our columns of a layout (`auto`: of the one that is guessed); empty while the layout is not known."""
        chosen = self.guessed.layout if layout == "auto" else layout
        return LAYOUTS[chosen].names if chosen is not None else ()


@dataclass(frozen=True)
class Look:
    """report: None when rows could not be read or learned at all. system, question: of the first conversation held out
    (else trained on), to try the result with."""

    report: Report | None
    findings: tuple[Finding, ...]
    first_batch: Preview | None = None
    system: str = ""
    question: str = ""

    @property
    def passed(self) -> bool:
        return self.report is not None and not any(not finding.warning for finding in self.findings)


def columns(file: Path | str) -> Columns:
    """Raises FileNotFoundError, and DatasetError for a file that cannot be read."""
    path = Path(file).expanduser()
    records, findings = read_records(path)
    if not records and findings:
        raise DatasetError(findings)
    names = tuple(columns_of(records))
    return Columns(names, guess(names))


def look(config: RunConfig) -> Look:
    """Reads, validates and tokenises. What is wrong with the data is in the findings.

    Raises FileNotFoundError, ModelNotFound, OSError when the model has no tokenizer.
    """
    try:
        dataset = load(config)
    except DatasetError as error:
        return Look(None, error.findings)
    source = resolve(config.model)
    tokenizer = load_tokenizer(source)
    report = inspect(dataset, tokenizer, config, vocabulary_size(source))
    batch = preview(report.train, tokenizer, config, limit=PREVIEWED) if report.train and not report.errors else None
    system, question = _first_words(dataset)
    return Look(report, report.findings, batch, system, question)


def first_words(config: RunConfig) -> tuple[str, str]:
    """As in `look`, without a tokenizer. Raises DatasetError, FileNotFoundError."""
    return _first_words(load(config))


def data_files(folder: Path) -> list[str]:
    """Files at `folder` and directly below that may hold conversations, for a list to choose from."""
    found = (
        str(path.relative_to(folder))
        for directory in _folders(folder)
        if directory == folder or not _holds(directory, "config.json")  # of a model's files none is data
        for path in _entries(directory)
        if path.name.lower().endswith(_DATA_SUFFIXES)
    )
    return list(islice(found, _OFFERED))


def model_names(folder: Path) -> list[str]:
    """The bundled model, and directories of models at `folder`."""
    found = (path.name for path in _folders(folder)[1:] if _holds(path, "config.json"))
    return [SMOLLM2, *islice(found, _OFFERED)]


def _folders(folder: Path) -> list[Path]:
    """`folder` and what is directly below, but for runs."""
    below = (path for path in _entries(folder) if _is_folder(path) and not _holds(path, "status.json"))
    return [folder, *below]


def _entries(directory: Path) -> list[Path]:
    """What is in a directory that can be read, but for what is hidden."""
    try:
        return sorted(path for path in islice(directory.iterdir(), _ENTRIES) if not path.name.startswith("."))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _holds(folder: Path, name: str) -> bool:
    try:
        return (folder / name).exists()
    except OSError:
        return False


def _first_words(dataset: Dataset) -> tuple[str, str]:
    """The system message and the first question of the first conversation held out, else trained on."""
    examples = dataset.held_out or dataset.train
    messages = examples[0].messages if examples else ()
    said = {message.role: message.content for message in reversed(messages)}
    return said.get("system", ""), said.get("user", "")
