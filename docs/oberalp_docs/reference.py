"""The reference: docstrings as they are written here, plain text with backticks, and the commands' own help.

Docstrings of this repository are not reStructuredText. `as_rst` shows them as they stand: prose as prose, lists as
lists, and everything that is aligned by hand (tables, formulas, shapes) letter for letter.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import click
import typer.main

COMMANDS = "<!-- commands -->"
_SPECIAL = re.compile(r"([\\*_|`:])")
_CODE = re.compile(r"(``?)([^`]+)\1")
_PROSE = re.compile(r"(?!\w{1,4}[.)]\s)[\w(`\"'“”]")  # how a line of prose begins; what else does is shown as it stands
_ALIGNED = re.compile(r"\S {2,}\S|^\s+\S", re.MULTILINE)
_FIELD = re.compile(r"^[\w, *]+: ", re.MULTILINE)


def as_rst(docstring: str) -> list[str]:
    """The lines of reStructuredText that look like the docstring.

    >>> as_rst("What `x` is, in *s*.\\n\\n    a  1\\n    b  2")
    ['What ``x`` is, in \\\\*s\\\\*.', '', '.. code-block:: text', '', '   a  1', '   b  2', '']
    """
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", docstring.strip("\n")):
        lines += [*_block(block.rstrip()), ""]
    return lines


def _block(block: str) -> list[str]:
    if block.startswith(">>>"):
        return block.splitlines()
    if block.startswith("- ") and all(_PROSE.match(item) for item in _items(block)):
        return [f"- {_inline(item)}" for item in _items(block)]
    if _ALIGNED.search(block) or not all(_PROSE.match(line) for line in block.splitlines()):
        return [".. code-block:: text", "", *(f"   {line}" for line in textwrap.dedent(block).splitlines())]
    if len(_FIELD.findall(block)) > 1:  # one a line: what each argument is
        return [f"| {_inline(line)}" for line in block.splitlines()]
    return _inline(block).splitlines()


def _items(block: str) -> list[str]:
    return [" ".join(item.split()) for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]]


def _inline(text: str) -> str:
    """Code stays code; whatever else reStructuredText would take for markup is text."""
    pieces, end = [], 0
    for code in _CODE.finditer(text):
        if not (inner := code[2].strip()):
            continue
        before, after = text[end : code.start()], text[code.end() : code.end() + 1]
        pieces += [_SPECIAL.sub(r"\\\1", before), "\\ " if before.strip() and not before[-1].isspace() else ""]
        pieces += [f"``{inner}``", "\\ " if after and not after.isspace() else ""]
        end = code.end()
    return "".join([*pieces, _SPECIAL.sub(r"\\\1", text[end:])])


def commands(app: typer.Typer, name: str) -> str:
    """Markdown with the help of every command and its subcommands."""
    return "\n".join(_command(typer.main.get_command(app), name, None))


def _command(command: Any, path: str, parent: Any) -> list[str]:
    context = click.Context(command, info_name=path, parent=None) if parent is None else None
    made: Any = context or command.context_class(command, info_name=path)
    depth = min(5, 1 + len(path.split()))
    text = [f"{'#' * depth} {path}", "", "```text", command.get_usage(made), "```", ""]
    if command.help:
        text += [textwrap.dedent(command.help).strip(), ""]
    rows = [row for parameter in command.get_params(made) if (row := parameter.get_help_record(made))]
    if rows:
        text += ["| Option | |", "|---|---|"]
        text += [f"| `{_cell(option)}` | {_cell(help_)} |" for option, help_ in rows]
        text.append("")
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        text += _command(inner, f"{path} {name}", made)
    return text


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split()) if text else ""


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst("\n".join(lines))


def _fill_in_commands(app: Any, name: str, source: list[str]) -> None:
    if COMMANDS in source[0]:
        from ipytune.cli import app as ipytune

        source[0] = source[0].replace(COMMANDS, commands(ipytune, "ipytune"))


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("source-read", _fill_in_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
