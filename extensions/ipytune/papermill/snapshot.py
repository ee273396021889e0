"""Keeps the variables of a notebook between kernels. The text of this file runs inside the kernel, as a module of the
name `_ipytune_state`: it may use the standard library and cloudpickle, nothing of ipytune.

- Variables that share a changeable object are kept together, so that they share it again: the optimizer and its model.
  Groups are apart, so that one which cannot be read does not spoil another.
- Every save looks at every variable (its pickle is hashed): what was changed in place is seen. What is unchanged is not
  written again, nor is a large array that another variable holds as well.
- A function of the notebook finds its globals in the notebook again, not in a copy.
- A value that looks secret, by its name or because a secret-looking environment variable holds it, is never written,
  nor anything that contains it.
- The directory is 0700, its files 0600; the record is replaced in one step, so a kill at any moment leaves the last.
"""

from __future__ import annotations

import copyreg
import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from subprocess import Popen
from typing import Any, BinaryIO

import cloudpickle

RECORD = "record.json"
MOMENTS = "(working directory and random numbers)"
LARGE = 1 << 16  # bytes of a buffer from which it is a file of its own
SHARE_LIMIT = 2_000_000  # shared objects are looked for among so many; a variable with more stands in the common group
STALE_DAYS = 30

_HISTORY = re.compile(r"_+|_i+|_i?\d+|__.*")
_OF_THE_SHELL = {"In", "Out", "get_ipython", "exit", "quit", "open"}
_SECRET = re.compile(r"(^|_)(api_?key|(access|secret|private)_?key|secret|passw(or)?d|passphrase|credentials?)$", re.I)
_MAYBE_SECRET = re.compile(r"(^|_)(key|token)$", re.I)  # or a key of a mapping, a token of a model
_LOOKS_SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w\-./+=:~]{12,}")
_HANDLES = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Semaphore,
    Executor,
    Popen,
)
_SINGLE = (str, bytes, tuple, frozenset, type, types.ModuleType, types.BuiltinFunctionType, types.CodeType)


class TooMuch(Exception):
    """A variable is over a limit."""


class Secret(Exception):
    """A variable contains something secret."""


class Refused(Exception):
    """The directory cannot be trusted."""


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: Any, namespace: dict[str, Any], buffers: Callable[[pickle.PickleBuffer], object]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers)
        self._namespace = namespace
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


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> Any:
        return _namespace()


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
    return types.FunctionType(code, _namespace(), name, None, cells or None)


def _dress(function: types.FunctionType, state: dict[str, Any]) -> None:
    for cell, contents in state.pop("cells"):
        cell.cell_contents = contents
    function.__dict__.update(state.pop("__dict__") or {})
    for name, value in state.items():
        if value is not None:
            setattr(function, name, value)


def _namespace() -> dict[str, Any]:
    found: dict[str, Any] = _shell().user_ns
    return found


def _shell() -> Any:
    from IPython import get_ipython

    return get_ipython()


class _Sink(io.RawIOBase):
    """Hashes what is written, within limits, and looks for secrets in it."""

    def __init__(self, secrets: Mapping[str, bytes], largest: int, deadline: float) -> None:
        self._hash, self._secrets, self._largest, self._deadline = hashlib.blake2b(), secrets, largest, deadline
        self._tail = b""
        self.size = 0
        self.buffers: dict[str, int] = {}

    def buffer(self, digest: str, size: int) -> None:
        """A large array, of which the digest stands for the content."""
        self.buffers[digest] = size
        self.size += size
        self.write(digest.encode())

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.size += view.nbytes
        if self.size > self._largest:
            raise TooMuch(f"it is larger than {_size(self._largest)}")
        if time.monotonic() > self._deadline:
            raise TooMuch("saving took too long")
        self._hash.update(view)
        for start in range(0, view.nbytes if self._secrets else 0, 1 << 24):
            text = self._tail + bytes(view[start : start + (1 << 24)])
            for name, secret in self._secrets.items():
                if secret in text:
                    raise Secret(f"it holds the value of {name}")
            self._tail = text[-max(map(len, self._secrets.values())) :]
        return view.nbytes

    def digest(self) -> str:
        return self._hash.hexdigest()[:40]


class Keeper:
    """One notebook's record: what was there before it, and what its variables were when they were last kept."""

    def __init__(self, directory: Path, largest: int, altogether: int, seconds: float) -> None:
        self.directory = Path(directory)
        self.largest, self.altogether, self.seconds = largest, altogether, seconds
        self.path, self.environ, self.shell_names = list(sys.path), dict(os.environ), dict(_namespace())
        self.known: dict[str, dict[str, Any]] = {}  # name -> its entry in the record
        self.groups: list[dict[str, Any]] = []
        self.moments = {-1: _moment()}  # after which code cell
        self.objects: dict[str, int] = {}  # ids of the variables' values at the last save
        # of large arrays by address and size, within one save; with what keeps the address from being used again
        self.digests: dict[tuple[int, int], tuple[str, pickle.PickleBuffer]] = {}

    def save(self, cell: int) -> dict[str, Any]:
        """After the code cell of this number. Returns the record."""
        try:
            return self._save(cell)
        finally:
            self.digests = {}

    def _save(self, cell: int) -> dict[str, Any]:
        deadline = time.monotonic() + self.seconds
        values = self._variables()
        self.moments[cell] = _moment()
        values[MOMENTS] = self.moments
        secrets = _secrets(values)
        entries: dict[str, dict[str, Any]] = {}
        shared: dict[str, dict[int, Any] | None] = {}
        total, counted = 0, set[str]()
        for name, value in values.items():
            before = self.known.get(name, {})
            objects: dict[int, Any] | None = None
            if before.get("over") and self.objects.get(name) == id(value):
                entry = {key: before[key] for key in ("left", "handle", "over")}  # not copied from its GPU each time
            else:
                entry, objects = self._look(name, value, secrets, deadline)
            buffers = entry.pop("buffers", {})
            new = entry.get("size", 0) - sum(size for digest, size in buffers.items() if digest in counted)
            if "left" not in entry and total + new <= self.altogether:
                total += new
                counted.update(buffers)
            elif "left" not in entry:
                entry = {"left": f"all variables together are larger than {_size(self.altogether)}", "handle": False}
            changed = list(before.get("changed", []))
            if self._differs(name, value, before, entry, secrets, deadline):
                changed.append(cell)
            entry["changed"] = sorted(set(changed))
            entries[name] = entry
            if "left" not in entry:
                shared[name] = objects
        _private(self.directory)
        groups = [self._write(names, values, entries) for names in _together(shared)]
        environ = {
            name: value
            for name, value in os.environ.items()
            if self.environ.get(name) != value and name not in _SET_BY_LIBRARIES
        }
        hidden = {
            name
            for name, value in environ.items()
            if _is_secret(name, value) or any(secret in os.fsencode(value) for secret in secrets.values())
        }
        record = {
            "version": 1,
            "cell": cell,
            "names": entries,
            "groups": [group for group in groups if group],
            "count": _shell().execution_count,
            "path": [entry for entry in sys.path if entry not in self.path],
            "environ": {name: value for name, value in environ.items() if name not in hidden},
            "secret_environ": sorted(hidden),
        }
        _write(self.directory / RECORD, json.dumps(record).encode())
        self.known, self.groups = entries, record["groups"]
        self._tidy()
        return record

    def restore(self, record: Mapping[str, Any], without: Iterable[str], first: int) -> dict[str, str]:
        """Puts the variables back, but for those named, to go on with this code cell. What the record knows of cells
        from there on is forgotten. Returns {name: why it could not be read}."""
        failed: dict[str, str] = {}
        namespace = _namespace()
        sys.path[:0] = [entry for entry in record["path"] if entry not in sys.path]
        os.environ.update(record["environ"])
        for group in record["groups"]:
            if not set(group["names"]) - set(without):
                continue
            try:
                found = self._read(group)
            except Exception as error:  # whatever a pickle may raise
                failed.update((name, f"{type(error).__name__}: {error}"[:200]) for name in group["names"])
                continue
            for name, value in found.items():
                if name in without:
                    continue
                if name == MOMENTS:
                    self.moments = value
                else:
                    namespace[name] = value
                    self.objects[name] = id(value)
        self.moments = {number: moment for number, moment in self.moments.items() if number < first}
        self.known = {
            name: {**entry, "changed": [number for number in entry["changed"] if number < first]}
            for name, entry in record["names"].items()
            if name not in failed
        }
        self.groups = record["groups"]
        _shell().execution_count = record["count"]
        self.before(first)
        return failed

    def before(self, cell: int) -> None:
        """Working directory and random numbers as they were before this code cell."""
        directory, states = self.moments[max(number for number in self.moments if number < cell)]
        if Path(directory).is_dir():
            os.chdir(directory)
        _set_random_states(states)

    def _variables(self) -> dict[str, Any]:
        namespace, hidden = _namespace(), _shell().user_ns_hidden
        return {
            name: value
            for name, value in list(namespace.items())
            if not _HISTORY.fullmatch(name)
            and name not in _OF_THE_SHELL
            and not (name in hidden and (not isinstance(hidden, dict) or hidden[name] is value))
            and not (name in self.shell_names and self.shell_names[name] is value)
        }

    def _differs(
        self,
        name: str,
        value: object,
        before: Mapping[str, Any],
        entry: dict[str, Any],
        secrets: Mapping[str, bytes],
        deadline: float,
    ) -> bool:
        """Whether the variable is another than in the last record. One whose pickle is never twice the same, as with a
        clock in it, is another when it is another object."""
        same_object, self.objects[name] = self.objects.get(name) == id(value), id(value)
        if "digest" not in entry or not before:
            return True
        if before.get("digest") == entry["digest"]:
            return False
        if before.get("restless") or self._look(name, value, secrets, deadline)[0].get("digest") != entry["digest"]:
            entry["restless"] = True
            return not same_object
        return True

    def _look(
        self, name: str, value: object, secrets: Mapping[str, bytes], deadline: float
    ) -> tuple[dict[str, Any], dict[int, Any] | None]:
        """An entry of the record with digest and size, or with why the variable is left out; and its objects."""
        try:
            if _is_secret(name, value):
                raise Secret("its name says that it is secret")
            sink = _Sink(secrets, self.largest, deadline)
            pickler = _Pickler(sink, _namespace(), lambda buffer: self._feed(sink, buffer))
            pickler.dump(value)
        except Exception as error:  # whatever __reduce__ may raise
            plain = isinstance(error, (TooMuch, Secret))
            reason = str(error) if plain else f"{type(error).__name__}: {error}"
            for shown, secret in secrets.items():
                reason = reason.replace(secret.decode(errors="replace"), shown)
            over = isinstance(error, TooMuch) and time.monotonic() < deadline
            return {"left": reason[:200], "handle": isinstance(value, _HANDLES), "over": over}, {}
        memo = pickler.memo.copy()
        entry = {"digest": sink.digest(), "size": sink.size, "buffers": sink.buffers}
        if len(memo) > SHARE_LIMIT:
            return entry, None
        return entry, {key: held[1] for key, held in memo.items() if not _single(held[1])}

    def _feed(self, sink: _Sink, buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < LARGE:
                sink.write(raw)
            else:
                sink.buffer(self._digest(buffer, raw), raw.nbytes)
        return False

    def _digest(self, buffer: pickle.PickleBuffer, raw: memoryview) -> str:
        """Read once in a save, however many variables hold the same array."""
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return hashlib.blake2b(raw).hexdigest()[:40]
        where = numpy.frombuffer(raw, numpy.uint8).ctypes.data, raw.nbytes
        if where not in self.digests:
            self.digests[where] = hashlib.blake2b(raw).hexdigest()[:40], buffer
        return self.digests[where][0]

    def _write(
        self, names: list[str], values: Mapping[str, Any], entries: dict[str, dict[str, Any]]
    ) -> dict[str, Any] | None:
        digest = hashlib.blake2b(json.dumps([[name, entries[name]["digest"]] for name in names]).encode()).hexdigest()
        known = next((group for group in self.groups if group["file"] == digest[:40]), None)
        if known:
            return known
        buffers: list[str] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            name = f"{self._digest(buffer, raw)}.data"
            if not (self.directory / name).exists():
                _write(self.directory / name, raw)
            buffers.append(name)
            return False

        try:
            file = self.directory / digest[:40]
            aside = file.with_suffix(".part")
            with _opened(aside) as stream:
                _Pickler(stream, _namespace(), keep).dump({name: values[name] for name in names})
            aside.replace(file)
        except Exception as error:
            for name in names:
                entries[name]["left"] = f"{type(error).__name__}: {error}"[:200]
                entries[name]["handle"] = False
            return None
        return {"file": digest[:40], "names": names, "buffers": buffers}

    def _read(self, group: Mapping[str, Any]) -> dict[str, Any]:
        buffers = [bytearray((self.directory / name).read_bytes()) for name in group["buffers"]]
        with (self.directory / group["file"]).open("rb") as stream:
            found: dict[str, Any] = _Unpickler(stream, buffers=buffers).load()
        return found

    def _tidy(self) -> None:
        wanted = {RECORD, *(group["file"] for group in self.groups)}
        wanted.update(name for group in self.groups for name in group["buffers"])
        for file in self.directory.iterdir():
            if file.name not in wanted:
                file.unlink()


_keeper: Keeper
_SET_BY_LIBRARIES = {"COLUMNS", "LINES", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "TORCHINDUCTOR_CACHE_DIR"}


def _single(value: object) -> bool:
    """Whether it does not matter that two hold the same one."""
    if isinstance(value, _SINGLE):
        return True
    module = type(value).__module__
    return (module.startswith("numpy") and "dtype" in type(value).__name__.lower()) or (
        module == "torch" and type(value).__name__ in ("dtype", "device", "Size", "memory_format", "layout")
    )


def _together(shared: Mapping[str, dict[int, Any] | None]) -> list[list[str]]:
    """Groups of names that hold a changeable object in common, the names in their order."""
    group_of = {name: [name] for name in shared}
    owner: dict[int, str] = {}

    def join(one: str, other: str) -> None:
        mine, theirs = group_of[one], group_of[other]
        if mine is not theirs:
            mine += theirs
            for name in theirs:
                group_of[name] = mine

    vast = [name for name, objects in shared.items() if objects is None]
    for name in shared if vast else ():
        join(vast[0], name)
    for name, objects in shared.items():
        for key in objects or ():
            join(owner.setdefault(key, name), name)
    return [sorted(group) for group in {id(group): group for group in group_of.values()}.values()]


def _is_secret(name: str, value: object) -> bool:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        return False
    return bool(_SECRET.search(name) or (_MAYBE_SECRET.search(name) and _LOOKS_SECRET.fullmatch(value)))


def _secrets(values: Mapping[str, Any]) -> dict[str, bytes]:
    found = {f"${name}": value for name, value in os.environ.items() if _is_secret(name, value)}
    found.update((name, value) for name, value in values.items() if _is_secret(name, value))
    return {
        name: value if isinstance(value, bytes) else value.encode(errors="replace")
        for name, value in found.items()
        if len(value) >= 8
    }


def _moment() -> tuple[str, dict[str, Any]]:
    return str(Path.cwd()), _random_states()


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate()}
    if "numpy.random" in sys.modules:
        states["numpy"] = sys.modules["numpy.random"].get_state()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = torch.get_rng_state().numpy().tobytes()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states


def _set_random_states(states: Mapping[str, Any]) -> None:
    random.setstate(states["random"])
    if "numpy" in states:
        import numpy.random

        numpy.random.set_state(states["numpy"])
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.frombuffer(bytearray(states["torch"]), dtype=torch.uint8))
        if "cuda" in states and torch.cuda.device_count() >= len(states["cuda"]):
            torch.cuda.set_rng_state_all(
                [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states["cuda"]]
            )


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _private(directory: Path) -> None:
    """Makes the directory, for its owner alone; or refuses one that others can write into."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.lstat()
    if found.st_uid != os.getuid() or directory.is_symlink() or not directory.is_dir():
        raise Refused(f"{directory} is not a directory of this user's")
    if found.st_mode & 0o077:
        directory.chmod(0o700)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def _write(path: Path, data: Any) -> None:
    aside = path.with_name(path.name + ".part")
    with _opened(aside) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def _root() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "ipytune" / "resume"


def _answer(action: Callable[[], object]) -> str:
    """What the client reads: never an exception, which would go to a log, and never a user's value."""
    try:
        return json.dumps(action())
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:300]})


def begin(run: str, largest: int, altogether: int, seconds: float) -> str:
    """In a fresh kernel, before any cell."""

    def action() -> dict[str, Any]:
        global _keeper
        root = _root()
        _keeper = Keeper(root / run, largest, altogether, seconds)
        for old in root.iterdir() if root.is_dir() else ():
            if old.name != run and time.time() - old.stat().st_mtime > STALE_DAYS * 86400:
                shutil.rmtree(old, ignore_errors=True)
        return {}

    return _answer(action)


def save(cell: int) -> str:
    def action() -> dict[str, Any]:
        begun = time.monotonic()
        record = _keeper.save(cell)
        return {
            "left": {name: entry["left"] for name, entry in record["names"].items() if "left" in entry},
            "secret_environ": record["secret_environ"],
            "seconds": time.monotonic() - begun,
        }

    return _answer(action)


def look() -> str:
    """The record of an earlier kernel, without any value; null when there is none."""

    def action() -> dict[str, Any] | None:
        file = _keeper.directory / RECORD
        if not file.exists():
            return None
        _private(_keeper.directory)
        record = json.loads(file.read_text())
        return {
            "cell": record["cell"],
            "names": {
                name: {"changed": entry["changed"], "left": entry.get("left"), "handle": entry.get("handle", False)}
                for name, entry in record["names"].items()
                if name != MOMENTS  # known for every cell: none has to run again for it
            },
            "secret_environ": record["secret_environ"],
        }

    return _answer(action)


def restore(without: list[str], first: int) -> str:
    def action() -> dict[str, Any]:
        record = json.loads((_keeper.directory / RECORD).read_text())
        return {"failed": _keeper.restore(record, without, first)}

    return _answer(action)


def before(cell: int) -> str:
    return _answer(lambda: _keeper.before(cell))


def drop() -> str:
    return _answer(lambda: shutil.rmtree(_keeper.directory, ignore_errors=True))
