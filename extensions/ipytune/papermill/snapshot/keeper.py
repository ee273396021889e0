"""The record of one notebook: which variables are kept, in which groups, and which code cells changed each of them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .looking import Look, readable
from .notebook import Baseline, Moment, moment, namespace, set_moment, shell
from .pickling import together
from .secrecy import Secrets
from .storage import Store

MOMENTS = "(working directory and random numbers)"
"""Kept as a variable is; no variable of a notebook has such a name."""


class Keeper:
    """What was there before the notebook, and what its variables were when they were last kept."""

    def __init__(self, store: Store, largest: int, altogether: int, seconds: float) -> None:
        """largest, altogether: bytes of one variable, and of all. seconds: for one save."""
        self.store = store
        self._largest, self._altogether, self._seconds = largest, altogether, seconds
        self._baseline = Baseline()
        self._known: dict[str, dict[str, Any]] = {}  # name -> its entry in the record
        self._groups: list[dict[str, Any]] = []
        self._moments: dict[int, Moment] = {-1: moment()}  # after which code cell
        self._objects: dict[str, int] = {}  # ids of the variables' values at the last save

    def save(self, cell: int) -> dict[str, Any]:
        """After the code cell of this number. Returns the record."""
        deadline = time.monotonic() + self._seconds
        values = self._baseline.variables()
        self._moments[cell] = moment()
        values[MOMENTS] = self._moments
        secrets = Secrets(values)
        look = Look(secrets, self._largest, deadline)
        entries, shareable = self._entries(cell, values, look)
        self.store.make_private()
        groups = [self._written(names, values, entries, look) for names in together(shareable)]
        environ = self._baseline.environ()
        hidden = secrets.among(environ)
        record = {
            "version": 1,
            "cell": cell,
            "names": entries,
            "groups": [group for group in groups if group],
            "count": shell().execution_count,
            "path": self._baseline.path(),
            "environ": {name: value for name, value in environ.items() if name not in hidden},
            "secret_environ": sorted(hidden),
        }
        self.store.write_record(record)
        self._known, self._groups = entries, record["groups"]
        self.store.tidy(self._groups)
        return record

    def restore(self, record: Mapping[str, Any], without: Iterable[str], first: int) -> dict[str, str]:
        """Puts the variables back, but for those named, to go on with this code cell. What the record knows of cells
        from there on is forgotten. Returns {name: why it could not be read}."""
        failed: dict[str, str] = {}
        variables = namespace()
        sys.path[:0] = [entry for entry in record["path"] if entry not in sys.path]
        os.environ.update(record["environ"])
        for group in record["groups"]:
            if not set(group["names"]) - set(without):
                continue
            try:
                found = self.store.read_group(group)
            except Exception as error:  # whatever a pickle may raise
                failed.update((name, f"{type(error).__name__}: {error}"[:200]) for name in group["names"])
                continue
            for name, value in found.items():
                if name in without:
                    continue
                if name == MOMENTS:
                    self._moments = value
                else:
                    variables[name] = value
                    self._objects[name] = id(value)
        self._moments = {number: then for number, then in self._moments.items() if number < first}
        self._known = {
            name: {**entry, "changed": [number for number in entry["changed"] if number < first]}
            for name, entry in record["names"].items()
            if name not in failed
        }
        self._groups = record["groups"]
        shell().execution_count = record["count"]
        self.before(first)
        return failed

    def before(self, cell: int) -> None:
        """Working directory and random numbers as they were before this code cell."""
        set_moment(self._moments[max(number for number in self._moments if number < cell)])

    def _entries(
        self, cell: int, values: Mapping[str, Any], look: Look
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[int, Any] | None]]:
        """Of all variables; and of those that are kept the objects that others may hold as well."""
        entries: dict[str, dict[str, Any]] = {}
        shareable: dict[str, dict[int, Any] | None] = {}
        total, counted = 0, set[str]()
        for name, value in values.items():
            before = self._known.get(name, {})
            objects: dict[int, Any] | None = None
            if before.get("over") and self._objects.get(name) == id(value):
                entry = {key: before[key] for key in ("left", "handle", "over")}  # not copied from its GPU each time
            else:
                entry, objects = look.at(name, value)
            buffers = entry.pop("buffers", {})
            new = entry.get("size", 0) - sum(size for digest, size in buffers.items() if digest in counted)
            if "left" not in entry and total + new <= self._altogether:
                total += new
                counted.update(buffers)
            elif "left" not in entry:
                entry = {
                    "left": f"all variables together are larger than {readable(self._altogether)}",
                    "handle": False,
                }
            changed = list(before.get("changed", []))
            if self._differs(name, value, before, entry, look):
                changed.append(cell)
            entry["changed"] = sorted(set(changed))
            entries[name] = entry
            if "left" not in entry:
                shareable[name] = objects
        return entries, shareable

    def _differs(self, name: str, value: object, before: Mapping[str, Any], entry: dict[str, Any], look: Look) -> bool:
        """Whether the variable is another than in the last record. One whose pickle is never twice the same, as with a
        clock in it, is another when it is another object."""
        same_object, self._objects[name] = self._objects.get(name) == id(value), id(value)
        if "digest" not in entry or not before:
            return True
        if before.get("digest") == entry["digest"]:
            return False
        if before.get("restless") or look.at(name, value)[0].get("digest") != entry["digest"]:
            entry["restless"] = True
            return not same_object
        return True

    def _written(
        self, names: list[str], values: Mapping[str, Any], entries: dict[str, dict[str, Any]], look: Look
    ) -> dict[str, Any] | None:
        """The group of these variables, whose digests name its file: one that is there is not written again. None where
        it cannot be pickled after all, which their entries then say."""
        digests = json.dumps([[name, entries[name]["digest"]] for name in names])
        file = hashlib.blake2b(digests.encode()).hexdigest()[:40]
        known = next((group for group in self._groups if group["file"] == file), None)
        if known:
            return known
        try:
            return self.store.write_group(file, {name: values[name] for name in names}, look.digest)
        except Exception as error:
            for name in names:
                entries[name]["left"] = f"{type(error).__name__}: {error}"[:200]
                entries[name]["handle"] = False
            return None
