"""How values are pickled: as cloudpickle does, but so that what comes back is at home in the notebook, shares storages
of tensors where they were shared, and keeps gradients. And which objects two values have in common.

The pickles name the functions of this module (`_new_cell`, `_function`, …): an earlier kernel's are read with these.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle

from .notebook import namespace

SHARE_LIMIT = 2_000_000  # shared objects are looked for among so many; a variable with more stands in the common group

_SINGLE = (str, bytes, tuple, frozenset, type, types.ModuleType, types.BuiltinFunctionType, types.CodeType)


class Pickler(cloudpickle.Pickler):
    """buffers: what to do with a large one; true for it to be a part of the pickle."""

    def __init__(self, file: Any, buffers: Callable[[pickle.PickleBuffer], object]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers)
        self._namespace = namespace()
        self._storages: dict[int, Any] = {}

    def persistent_id(self, obj: Any) -> str | None:
        """`globals()`, held by an object of the notebook, is the notebook's again."""
        return "globals" if obj is self._namespace else None

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType and obj.__globals__ is self._namespace:
            return _reduced_function(obj)
        if kind is types.CellType:
            return _new_cell, ()
        if kind is type and obj.__module__ == "__main__":
            # pickling the first instance writes this into the class, which then looks changed
            copyreg._slotnames(obj)  # type: ignore[attr-defined]
        torch = sys.modules.get("torch")
        if torch is not None and kind is torch.storage.TypedStorage:
            plain = obj._untyped_storage
            if plain.device.type == "cpu" and not plain.is_shared():
                plain = self._storages.setdefault(plain.data_ptr() if plain.nbytes() else id(plain), plain)
                return _typed_storage, (plain, obj.dtype)
        if torch is not None and kind is torch.UntypedStorage and obj.device.type == "cpu" and not obj.is_shared():
            return _untyped_storage, (pickle.PickleBuffer(_bytes_of(obj)),)
        if torch is not None and isinstance(obj, torch.Tensor):
            if obj.grad_fn is not None:
                return obj.detach().__reduce_ex__(5)  # no graph can be kept; a backward() from it says so
            if obj.grad is not None and len(made := obj.__reduce_ex__(5)) == 2:
                return _with_gradient, (*made, obj.grad)
        return super().reducer_override(obj)

    def shareable(self) -> dict[int, Any] | None:
        """By id, the objects in what was pickled that others may hold as well; None where they are too many."""
        memo = self.memo.copy()
        if len(memo) > SHARE_LIMIT:
            return None
        return {key: held[1] for key, held in memo.items() if not _single(held[1])}


class Unpickler(pickle.Unpickler):
    """Reads what a Pickler of this or an earlier kernel wrote."""

    def persistent_load(self, name: str) -> Any:
        return namespace()


def together(shareable: Mapping[str, Mapping[int, Any] | None]) -> list[list[str]]:
    """Groups of names that hold a changeable object in common, the names in their order."""
    group_of = {name: [name] for name in shareable}
    owner: dict[int, str] = {}

    def join(one: str, other: str) -> None:
        mine, theirs = group_of[one], group_of[other]
        if mine is not theirs:
            mine += theirs
            for name in theirs:
                group_of[name] = mine

    vast = [name for name, objects in shareable.items() if objects is None]
    for name in shareable if vast else ():
        join(vast[0], name)
    for name, objects in shareable.items():
        for key in objects or ():
            join(owner.setdefault(key, name), name)
    return [sorted(group) for group in {id(group): group for group in group_of.values()}.values()]


def _single(value: object) -> bool:
    """Whether it does not matter that two hold the same one."""
    if isinstance(value, _SINGLE):
        return True
    module = type(value).__module__
    return (module.startswith("numpy") and "dtype" in type(value).__name__.lower()) or (
        module == "torch" and type(value).__name__ in ("dtype", "device", "Size", "memory_format", "layout")
    )


# --- tensors ----------------------------------------------------------------------------------------------------------


def _bytes_of(storage: Any) -> Any:
    import torch

    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy() if storage.nbytes() else b""


def _untyped_storage(data: Any) -> Any:
    import torch

    if not len(data):
        return torch.UntypedStorage(0)
    return torch.frombuffer(data, dtype=torch.uint8).untyped_storage()


def _typed_storage(plain: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=plain, dtype=dtype, _internal=True)


def _with_gradient(make: Callable[..., Any], arguments: tuple[Any, ...], gradient: Any) -> Any:
    tensor = make(*arguments)
    tensor.grad = gradient
    return tensor


# --- functions of the notebook ----------------------------------------------------------------------------------------


def _reduced_function(function: types.FunctionType) -> tuple[Any, ...]:
    names = ("__defaults__", "__kwdefaults__", "__dict__", "__annotations__", "__doc__", "__qualname__", "__module__")
    state = {name: getattr(function, name, None) for name in names}
    cells = function.__closure__ or ()
    state["cells"] = [(cell, cell.cell_contents) for cell in cells if _filled(cell)]
    return _function, (function.__code__, function.__name__, cells), state, None, None, _dress


def _filled(cell: types.CellType) -> bool:
    try:
        return bool(cell.cell_contents is cell.cell_contents)
    except ValueError:  # a name that was not bound yet
        return False


def _new_cell() -> types.CellType:
    return types.CellType()


def _function(code: types.CodeType, name: str, cells: tuple[types.CellType, ...]) -> types.FunctionType:
    return types.FunctionType(code, namespace(), name, None, cells or None)


def _dress(function: types.FunctionType, state: dict[str, Any]) -> None:
    for cell, contents in state.pop("cells"):
        cell.cell_contents = contents
    function.__dict__.update(state.pop("__dict__") or {})
    for name, value in state.items():
        if value is not None:
            setattr(function, name, value)
