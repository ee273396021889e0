"""The order of the pages: the lists of docs/README.md, which people read on their forge, are the site's contents too.

Each entry `- Title: [page](path), …` becomes a part of the navigation with these pages; an entry that links to a folder
takes all of its pages, and the link leads to the first. A page that stands in no list is a warning of Sphinx's, and so
an error of the build.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_ENTRY = re.compile(r"^- (?:\[)?(?P<title>[A-Z][\w ]*)", re.MULTILINE)
_FOLDER = re.compile(r"\]\(([^)#\s:]+/)\)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def parts(readme: str) -> Iterator[tuple[str, list[str]]]:
    """(title, linked paths) of each entry of a list, paths as they are written.

    >>> list(parts("- Users: [one](user/one.md), [two](user/two.md)\\n- [Decisions](decisions/): why\\n"))
    [('Users', ['user/one.md', 'user/two.md']), ('Decisions', ['decisions/'])]
    """
    for line in readme.splitlines():
        if (entry := _ENTRY.match(line)) and (links := _LINK.findall(line)):
            yield entry["title"], links


def documents(links: Iterable[str], folder: str, known: Iterable[str]) -> list[str]:
    """Names of Sphinx's documents, in order, once each; `folder` is where the links stand."""
    found: list[str] = []
    for link in links:
        path = posixpath.normpath(posixpath.join(folder, link))
        below = sorted(name for name in known if name.startswith(f"{path}/"))
        found += below if link.endswith("/") else [re.sub(r"\.(md|ipynb)$", "", path)]
    return list(dict.fromkeys(found))


def contents(readme: str, folder: str, known: Iterable[str]) -> str:
    """A hidden table of contents for each part, as MyST writes it."""
    known = list(known)
    blocks = []
    for title, links in parts(readme):
        names = "\n".join(f"/{name}" for name in documents(links, folder, known))
        blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n")
    return "\n".join(blocks)


def without_folders(text: str, folder: str, known: Iterable[str]) -> str:
    """Links to folders, which a forge shows and a site does not have, lead to the first page below them."""
    known = sorted(known)

    def lead(link: re.Match[str]) -> str:
        pages = documents([link[1]], folder, known)
        return f"](/{pages[0]}{_ending(pages[0])})" if pages else link[0]

    return _FOLDER.sub(lead, text)


def _ending(document: str) -> str:
    return ".ipynb" if document.startswith("notebooks/") else ".md"


def executed(name: str, root: Path) -> Path | None:
    """The notebook of that name as the runner left it, if that was made from what lies in the repository now."""
    original, made = root / f"{name}.ipynb", root / "var" / f"{name}.ipynb"
    if not made.is_file():
        return None
    cells = [json.loads(path.read_text(encoding="utf-8"))["cells"] for path in (original, made)]
    written, run = ([cell["source"] for cell in some if not _injected(cell)] for some in cells)
    return made if written == run else None


def _injected(cell: dict[str, Any]) -> bool:
    return "injected-parameters" in cell["metadata"].get("tags", [])


def _show_executed(app: Any, name: str, source: list[str]) -> None:
    if name.startswith("notebooks/") and (made := executed(name, Path(app.srcdir))) is not None:
        source[0] = made.read_text(encoding="utf-8")


def _add_contents(app: Any, name: str, source: list[str]) -> None:
    if name == app.config.root_doc:
        source[0] += "\n" + contents(source[0], posixpath.dirname(name), app.env.found_docs)
    if not name.startswith("notebooks/"):  # whose source is JSON
        source[0] = without_folders(source[0], posixpath.dirname(name), app.env.found_docs)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _show_executed)
    app.connect("source-read", _add_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
