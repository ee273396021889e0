"""The endpoints that a person keeps: a YAML file of their own, by hand or by `ipytune endpoints add`.

    endpoints:
      - name: site
        base_url: https://inference.example.org/v1
        model: llama-3-8b
        key_env: SITE_KEY        # the NAME of a variable, or key_file: a path; never the key

Comments and order survive what the command line changes. Nothing of the file's content goes into an error but names and
line numbers: it may be a key, written there by mistake.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.private_file import write_private
from ipytune.endpoints.records import Endpoint, described

_HEAD = "# Endpoints of ipytune. Keys are not written here: name the variable (key_env) or file (key_file) of one.\n"


def location() -> Path:
    """$IPYTUNE_ENDPOINTS_FILE, else endpoints.yaml below $XDG_CONFIG_HOME or ~/.config."""
    named = os.environ.get("IPYTUNE_ENDPOINTS_FILE")
    if named:
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "ipytune" / "endpoints.yaml"


def read(path: Path) -> tuple[list[Endpoint], list[str]]:
    """The endpoints of the file, and what is wrong with it or with single ones. A missing file holds none."""
    try:
        items = _items(_text(path), path)
    except BadRequest as error:
        return [], [str(error)]
    found: list[Endpoint] = []
    problems: list[str] = []
    for number, item in enumerate(items, 1):
        try:
            endpoint = listed(item)
            if endpoint.name in {other.name for other in found}:
                raise BadRequest("There is one of that name before it.", "", "Give each a name of its own.")
        except BadRequest as error:
            problems.append(f"{path}: endpoint {number} is left out. {error}")
        else:
            found.append(endpoint)
    return found, problems


def listed(item: Any) -> Endpoint:
    """The endpoint that one entry of a list describes, here or in the site's variable. Raises BadRequest."""
    if not isinstance(item, dict) or not all(isinstance(name, str) for name in item):
        raise BadRequest("This is no endpoint.", "It has no fields.", "Give name, base_url and model.")
    return described(**item)


def add(endpoint: Endpoint, *, replace: bool = False) -> Path:
    """Write `endpoint` into the user's file; its path. Raises BadRequest: the name is taken, the file is broken."""
    path = location()
    text = _text(path)
    if any(_name(item) == endpoint.name for item in _items(text, path)):
        if not replace:
            raise BadRequest(
                f"There is an endpoint “{endpoint.name}” already.",
                f"It is in {path}.",
                "Choose another name, or say that it is to be replaced (--replace).",
            )
        text = without(text, endpoint.name, path)
    _write(path, with_added(text, endpoint, path))
    return path


def remove(name: str) -> Path:
    """Take the endpoint of that name out of the user's file; its path. Raises BadRequest when it is not there."""
    path = location()
    text = _text(path)
    names = [_name(item) for item in _items(text, path)]
    if name not in names:
        kept = ", ".join(str(each) for each in names if each) or "none"
        raise BadRequest(f"{path} has no endpoint of that name.", f"It has: {kept}.", "Name one of those.")
    _write(path, without(text, name, path))
    return path


def with_added(text: str, endpoint: Endpoint, path: Path) -> str:
    """The file's text with one endpoint more, at the end of the list."""
    items, item = _items(text, path), endpoint.model_dump(mode="json", exclude_none=True)
    node = _list_node(text)
    if node is not None and node.value and not node.flow_style:
        lines = _lines(text)
        margin = " " * node.start_mark.column
        block = yaml.safe_dump([item], sort_keys=False, allow_unicode=True).splitlines(keepends=True)
        at = _last_line(node) + 1
        changed = "".join([*lines[:at], *(margin + line for line in block), *lines[at:]])
        if _holds(changed, [*items, item]):
            return changed
    return _whole([*items, item])


def without(text: str, name: str, path: Path) -> str:
    """The file's text without the endpoint of that name."""
    items = _items(text, path)
    rest = [item for item in items if _name(item) != name]
    node = _list_node(text)
    if node is not None and not node.flow_style and len(items) - len(rest) == 1:
        [at] = [at for at, item in enumerate(items) if _name(item) == name]
        lines, gone = _lines(text), node.value[at]
        changed = "".join([*lines[: gone.start_mark.line], *lines[_last_line(gone) + 1 :]])
        if _holds(changed, rest):
            return changed
    return _whole(rest)


def _items(text: str, path: Path) -> list[Any]:
    """The entries of the list, unchecked. Raises BadRequest for what is no list of endpoints."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise BadRequest(f"{path} cannot be read.", f"It is not YAML{line}.", "Mend it, or move it away.") from None
    except (ValueError, RecursionError):  # a date that is none, for example
        raise BadRequest(f"{path} cannot be read.", "A value in it is none.", "Mend it, or move it away.") from None
    listing = document.get("endpoints") if isinstance(document, dict) else document
    if listing is None:
        listing = []
    if not isinstance(listing, list):
        raise BadRequest(
            f"{path} holds no list of endpoints.",
            "",
            "Begin it with `endpoints:` and give each endpoint below it a line `- name: …`.",
        )
    return listing


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = f"{getattr(error, 'strerror', None) or 'It is not text'}."
        raise BadRequest(f"{path} cannot be read.", why, "Make it a text file of your own.") from None


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be written.", f"{error.strerror}.", "Name another file in IPYTUNE_ENDPOINTS_FILE."
        ) from None


def _whole(items: list[Any]) -> str:
    return _HEAD + yaml.safe_dump({"endpoints": items}, sort_keys=False, allow_unicode=True)


def _holds(text: str, items: list[Any]) -> bool:
    try:
        return _items(text, Path()) == items
    except BadRequest:
        return False


def _name(item: Any) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _list_node(text: str) -> yaml.SequenceNode | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        root = next((value for key, value in root.value if key.value == "endpoints"), None)
    return root if isinstance(root, yaml.SequenceNode) else None


def _last_line(node: yaml.Node) -> int:
    """The number of the last line that the node writes on; a collection's own mark is behind what follows it."""
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1][1])
    mark = node.end_mark
    return int(mark.line if mark.column else max(mark.line - 1, node.start_mark.line))


def _lines(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines
