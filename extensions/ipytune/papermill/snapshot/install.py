"""Runs in the kernel before the other modules of this folder: makes a package of their texts, as if it were installed.

It is a real package, because a pickle names functions by their module, and cloudpickle takes a module that is in
`sys.modules` for one that the next kernel can import. It can, as the package is there before any pickle is read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType


class _Texts(MetaPathFinder, InspectLoader):
    """Finds modules in a mapping of their full names to their texts."""

    def __init__(self, package: str, texts: Mapping[str, str]) -> None:
        self._package, self._texts = package, texts

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in self._texts else None

    def get_source(self, fullname: str) -> str:
        return self._texts[fullname]

    def is_package(self, fullname: str) -> bool:
        return fullname == self._package


def install(package: str, texts: Mapping[str, str]) -> None:
    """texts: of the package's modules, by file name without `.py`. Replaces what was installed under this name."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    full = {package if name == "__init__" else f"{package}.{name}": text for name, text in texts.items()}
    finder = _Texts(package, full)
    sys.meta_path.insert(0, finder)
    try:
        for name in full:
            import_module(name)
    finally:
        sys.meta_path.remove(finder)  # all are imported: the kernel's imports are its own again
