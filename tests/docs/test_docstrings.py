"""The examples in docstrings say what the code does: the reference shows them to users."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"ipytune": ROOT / "extensions", "hybridspawner": ROOT / "spawners"}


def modules_with_examples() -> list[str]:
    return [
        ".".join(file.relative_to(parent).with_suffix("").parts).removesuffix(".__init__")
        for name, parent in PACKAGES.items()
        for file in sorted((parent / name).rglob("*.py"))
        if ">>> " in file.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_hold(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""  # without its indentation
            where = getattr(node, "name", name)
            runner.run(doctest.DocTestParser().get_doctest(text, dict(vars(module)), where, module.__file__, 0))
    assert runner.summarize(verbose=False).attempted, "no docstring, only text that looks like an example"
    assert not runner.failures
