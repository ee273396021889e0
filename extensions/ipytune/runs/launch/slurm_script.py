"""The batch script of a run, for the launcher and for the export alike. Pure: settings in, text out.

What a user chose reaches it in one of three ways, each closed: as one word of a strict pattern in an #SBATCH line,
quoted for the shell, or as the rest of a comment line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ipytune.runs.launch.settings import NOTICE_SECONDS, SlurmSettings

_WORD = re.compile(r"[\x21-\x7e]+", re.ASCII)


def directive(value: Any) -> str:
    """`value` if it is one word of printable ASCII, else ValueError: the second lock behind `settings`."""
    text = str(value)
    if _WORD.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} cannot be put into an #SBATCH line: one word is expected.")
    return text


def comment(value: Any) -> str:
    """`value` as the rest of one comment line."""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


templates = Environment(
    loader=PackageLoader("ipytune.runs.launch"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(directive=directive, comment=comment, sh=lambda value: shlex.quote(str(value)))


def submission(run_dir: str) -> list[str]:
    """The command that submits the script of a run directory, to run where it is submitted: a relative `model` then
    means the same. --export=ALL, whatever SBATCH_EXPORT says: the caller's environment holds the tokens and addresses
    that no file may, and where caches are. sbatch replaces %j and the like in file names."""
    if "\\" in run_dir:
        raise ValueError(f"{run_dir} has a backslash in it, which sbatch does not take in a file name. Choose another.")
    log = f"{run_dir}/train.log".replace("%", "%%")
    return ["sbatch", "--parsable", "--export=ALL", f"--output={log}", f"{run_dir}/launch/job.sbatch"]


def launched(settings: SlurmSettings, python: str, run_dir: str) -> str:
    """The script that the launcher submits: the run directory is there, and holds its configuration."""
    quoted = {"python": shlex.quote(python), "run_dir": shlex.quote(run_dir)}
    return _render(settings, **quoted, config=None, log=None, submit=submission(run_dir), facts=[])


def exported(settings: SlurmSettings, facts: Sequence[str]) -> str:
    """The script of an export: it lies beside config.yaml, and makes `run/` there. facts: comment lines."""
    run_dir, config = '"$PWD/run"', '"$PWD/config.yaml"'
    submit = ["sbatch", "job.sbatch"]
    return _render(
        settings, python="python3", run_dir=run_dir, config=config, log="train-%j.log", submit=submit, facts=facts
    )


def _render(settings: SlurmSettings, submit: Sequence[str], **more: Any) -> str:
    template = templates.get_template("job.sbatch.j2")
    return template.render(job=settings, notice=NOTICE_SECONDS, submit=shlex.join(submit), **more)
