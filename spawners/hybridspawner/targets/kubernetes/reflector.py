"""What the hub sees of a cluster: kubespawner's shared reflectors, which here outlive an API server that goes away.

kubespawner's own give up after about a minute of errors and are then used for ever as they are (kubespawner#938, #577),
or hang on a connection that died silently (#209). These promise:

- every request has an end, so a watch that stalls is broken off and begun anew, and the log says so;
- they never give up; what was seen last is kept, and `silent` says that it may be old;
- whoever waits for a pod is woken by its next event, so nobody polls;
- the last state of a deleted pod is kept for a while: it says how the pod ended.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from functools import partial
from typing import Any

from kubernetes_asyncio import watch
from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner import KubeSpawner
from kubespawner.reflector import ResourceReflector
from kubespawner.spawner import EventReflector, PodReflector

from ...within import happened

_LIST_SECONDS = 10
_RELIST_SECONDS = 300.0  # a list of everything now and then, in case an event was lost; kubespawner lists every 10 s
_LONGEST_PAUSE = 2.0
_KEPT_ENDS = 500


class _Steady(ResourceReflector):
    """A reflector that begins again until it is stopped. Times are seconds of time.monotonic()."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heard_at = time.monotonic()
        self.silent_since: float | None = None
        self.loaded = asyncio.Event()
        self.settled = asyncio.Event()
        """Set with the first list, or with the first refusal of one."""
        self.refusal = ""
        """The server's words when we may not list these; empty once it has let us."""
        self.resources: dict[str, dict[str, Any]] = {}
        self._ends: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._waiting: dict[str, asyncio.Event] = {}
        self._listed_at = 0.0

    @property
    def age(self) -> float:
        """Seconds since the API server last told us anything; in good times below `timeout_seconds`."""
        return time.monotonic() - self.heard_at

    @property
    def silent(self) -> bool:
        """Whether the API server does not answer, so that what is reflected may be old."""
        return self.silent_since is not None or self.age > self.timeout_seconds + 2 * _LIST_SECONDS

    def end_of(self, uid: str) -> dict[str, Any] | None:
        """The last state of a resource that was deleted not long ago."""
        return self._ends.get(uid)

    async def change(self, key: str, seconds: float) -> None:
        """Wait for the next event about `key` (namespace/name of a pod), or for `seconds`."""
        await happened(self._waiting.setdefault(key, asyncio.Event()), seconds)

    def wake(self, key: str) -> None:
        event = self._waiting.pop(key, None)
        if event is not None:
            event.set()

    def about(self, resource: dict[str, Any]) -> str:
        """The pod that an event is about, as namespace/name."""
        metadata: dict[str, str] = resource.get("involvedObject") or resource["metadata"]
        return f"{metadata.get('namespace')}/{metadata.get('name')}"

    # --- the task ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.watch_task = asyncio.create_task(self._watch_and_update())

    async def stop(self) -> None:
        self._stopping = True
        if self.watch_task is not None and not self.watch_task.done():
            self.watch_task.cancel()
            await asyncio.wait([self.watch_task], timeout=5)

    async def _watch_and_update(self) -> None:
        version, pause = "", 0.2
        while not self._stopping:
            began = time.monotonic()
            try:
                if not version or began - self._listed_at > _RELIST_SECONDS:
                    version = await self._list()
                version = await self._watch(version)
                pause = 0.2
                if time.monotonic() - began < 1:  # something between us and the server ends watches at once
                    await asyncio.sleep(pause)
            except Exception as error:
                version = ""
                self._failed(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> str:
        """Read everything; the version from which to watch."""
        answer = await self._call()(**self._selection(), _request_timeout=_LIST_SECONDS)
        if answer.status != 200:
            raise ApiException(status=answer.status, reason=(await answer.text()).strip() or answer.reason)
        listed = json.loads(await answer.read())
        before, self.resources = self.resources, {_key(item): item for item in listed["items"]}
        uids = {item["metadata"]["uid"] for item in self.resources.values()}
        for item in before.values():
            if item["metadata"]["uid"] not in uids:
                self._keep_end(item)
        self._listed_at = time.monotonic()
        self._heard()
        self.refusal = ""
        self.loaded.set()
        self.settled.set()
        if not self.first_load_future.done():
            self.first_load_future.set_result(None)
        for key in list(self._waiting):
            self.wake(key)
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        """Follow events for `timeout_seconds`; the version that was reached."""
        stream = watch.Watch()
        seconds = {"timeout_seconds": self.timeout_seconds, "_request_timeout": self.timeout_seconds + _LIST_SECONDS}
        try:
            async with stream.stream(
                self._call(), **self._selection(), resource_version=version, allow_watch_bookmarks=True, **seconds
            ) as events:
                async for event in events:
                    self._heard()
                    resource = event["raw_object"]
                    version = resource["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._apply(event["type"], resource)
        finally:
            await stream.close()
        self._heard()
        return version

    def _call(self) -> Any:
        return partial(getattr(self.api, self.list_method_name), _preload_content=False)

    def _selection(self) -> dict[str, Any]:
        namespace = {} if self.omit_namespace else {"namespace": self.namespace}
        return {"label_selector": self.label_selector, "field_selector": self.field_selector, **namespace}

    def _apply(self, kind: str, resource: dict[str, Any]) -> None:
        if kind == "DELETED":
            self.resources.pop(_key(resource), None)
            self._keep_end(resource)
        else:
            self.resources[_key(resource)] = resource
        self.wake(self.about(resource))

    def _keep_end(self, resource: dict[str, Any]) -> None:
        if self.kind != "pods":
            return
        self._ends[resource["metadata"]["uid"]] = resource
        while len(self._ends) > _KEPT_ENDS:
            self._ends.popitem(last=False)

    def _heard(self) -> None:
        self.heard_at = time.monotonic()
        if self.silent_since is not None:
            self.log.warning(
                "Kubernetes answers again after %.0f s; its %s are read anew",
                self.heard_at - self.silent_since,
                self.kind,
            )
            self.silent_since = None

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ApiException) and error.status in (410, 504):
            return  # the version is too old or too new for this server: a list puts it right
        if isinstance(error, ApiException) and error.status in (401, 403, 404):
            if not self.refusal:
                self.log.error("The hub may not list %s: %s", self.kind, error.reason)
            self.refusal = str(error.reason)
            self.settled.set()
            return
        if self.silent_since is None:
            self.silent_since = self.heard_at
            words = f"{type(error).__name__} {error}".split("\n")[0]
            self.log.warning("Kubernetes does not answer about %s (%s); the hub keeps asking", self.kind, words)


class SteadyPods(_Steady, PodReflector):
    """Pods of one namespace, or of all."""


class SteadyEvents(_Steady, EventReflector):
    """Events about pods."""


_STEADY = {"pods": SteadyPods, "events": SteadyEvents}


def _key(resource: dict[str, Any]) -> str:
    return f"{resource['metadata']['namespace']}/{resource['metadata']['name']}"


def shared_reflector(spawner: KubeSpawner, kind: str, replace: bool, **traits: Any) -> Any:
    """The one reflector of `kind` for this spawner's namespace, begun if there is none, or begun anew."""
    key = spawner._get_reflector_key(kind)
    old = KubeSpawner.reflectors.get(key)
    if isinstance(old, _Steady) and not replace and old.watch_task is not None and not old.watch_task.done():
        return old
    # no parent: it would keep the first session's spawner alive for ever
    new = _STEADY[kind](config=spawner.config, log=spawner.log, namespace=spawner.namespace, **traits)
    KubeSpawner.reflectors[key] = new
    new.watch_task = asyncio.create_task(new._watch_and_update())
    if old is not None:
        spawner.log.warning("The reflector of %s is replaced by a new one", kind)
        asyncio.ensure_future(old.stop())
    return new


def _pods_of(namespace: str) -> SteadyPods | None:
    reflectors = KubeSpawner.reflectors
    found = reflectors.get(("pods", namespace)) or reflectors.get(("pods", None))
    return found if isinstance(found, SteadyPods) else None


def reflector_age(namespace: str) -> float | None:
    """Seconds since the API server last told us about pods of `namespace`; None before the first session."""
    reflector = _pods_of(namespace)
    return None if reflector is None else reflector.age


def silent_for(namespace: str) -> float | None:
    """Seconds since the API server stopped to answer about pods; None while it answers or nobody has asked."""
    reflector = _pods_of(namespace)
    return reflector.age if reflector is not None and reflector.silent else None
