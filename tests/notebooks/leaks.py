"""Secrets and absolute paths in what an executed notebook keeps: outputs, and the state of its widgets.

A path that begins at a root tells who ran it and is wrong for everybody else. Patterns find what looks like a key;
`known` values (a key that the runner itself put into the environment) are found as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from nbformat import NotebookNode

SECRETS = {
    "a bearer token": re.compile(r"Bearer\s+(?=[\w.~+/-]*\d)[\w.~+/-]{16,}"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a token of GitHub": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    "a key of AWS": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a named secret": re.compile(
        r"(?i)\b\w*(api_?key|token|secret|passw(or)?d)\\?[\"']?\s*[:=]\s*\\?[\"']?(?=[a-z_-]*\d)(?=\d*[a-z_-])[\w-]{20,}"
    ),
}
# Not part of a URL or of a longer path: what stands before is no letter, dot, slash or colon of one.
_ABSOLUTE = re.compile(r"(?<![\w.:/~-])/(?:home|users|Users|root|tmp|var/tmp|scratch|capstor|iopsstor)/[\w.@-]+")
_SHOWN = 12  # characters of a secret in a finding: enough to find it, too few to use it


def findings_of_leaks(notebook: NotebookNode, known: Iterable[str] = (), folders: Iterable[str] = ()) -> list[str]:
    """One finding for each kind of leak in each place. known: secrets as they are; folders: paths as they are."""
    known, folders = tuple(known), tuple(folders)
    found: dict[str, None] = {}
    for place, text in _shown(notebook):
        for what, pattern in SECRETS.items():
            if (match := pattern.search(text)) is not None:
                found[f"{place} shows {what}: {match[0][:_SHOWN]}…"] = None
        if any(secret in text for secret in known):
            found[f"{place} shows a secret of the environment"] = None
        if (path := _path_in(text, folders)) is not None:
            found[f"{place} shows an absolute path: {path}"] = None
    return list(found)


def _path_in(text: str, folders: tuple[str, ...]) -> str | None:
    for folder in folders:
        if folder in text:
            return folder
    match = _ABSOLUTE.search(text)
    return match[0] if match else None


def _shown(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Every text that the file keeps beside its sources, with its place."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        name = cell.get("id", f"cell {number}")
        for output in cell.outputs:
            if output.output_type == "stream":
                yield name, output.text
            elif output.output_type == "error":
                yield name, "\n".join([output.evalue, *output.traceback])
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/") or kind == "image/svg+xml":
                    yield name, data if isinstance(data, str) else json.dumps(data)
    for state in notebook.metadata.get("widgets", {}).values():
        for model in state.get("state", {}).values():
            kept = {key: value for key, value in model.get("state", {}).items() if key not in ("_esm", "_css")}
            yield "the state of a widget", json.dumps(kept)
