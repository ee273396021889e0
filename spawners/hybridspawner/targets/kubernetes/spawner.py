"""A session as a pod: KubeSpawner makes the pod's description and its volume; life and death of the pod are ours.

- The mark is persisted before the pod is created and its uid as soon as it is known, so a hub that dies in between
  finds the pod again, or proves that there is none.
- Cancelling a start never interrupts a request to create: stop waits for it, deletes, and returns on the server's 404.
- Evidence of a failure ends a start at once; being unschedulable is waiting. An API server that does not answer changes
  nothing: the page says so, and everything is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner import KubeSpawner
from traitlets import Float

from ...diagnose import StartFailed
from ...diagnose import kubernetes as diagnose
from ...diagnose.log import without_secrets
from ...events import EventLog
from ...within import within
from .evidence import Evidence
from .pod import MARK_LABEL, Occupied, Refused, SessionPod, Silent
from .reflector import shared_reflector

_NODE_SECONDS = 10.0  # between two looks at the node of a pod that does not run yet
_SILENT = "Kubernetes does not answer at the moment; the pod keeps its place"


class KubernetesSessionSpawner(KubeSpawner):
    """See the module. `mark` is set by HybridSpawner before a start."""

    stop_timeout = Float(25, help="Seconds to wait for the proof that a pod has ended.").tag(config=True)
    volume_grace = Float(60, help="Seconds that a volume claim may take to be bound before a start is given up.").tag(
        config=True
    )

    progress_log: EventLog | None = None
    on_change: Callable[[], None] = staticmethod(lambda: None)
    mark = ""
    gate: AbstractAsyncContextManager[Any] = nullcontext()
    queue_seconds = 0.0
    _creating: asyncio.Future[None] | None = None
    _volume_since: float | None = None
    _look_at_node = 0.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._marked_at = 0.0
        self._pod = SessionPod(self.api, self.namespace, self.pod_name, "")
        self._prepared = asyncio.Event()

    # --- state -------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.mark:
            state |= {"mark": self.mark, "marked_at": self._marked_at, "pod_uid": self._pod.uid}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        mark = str(state.get("mark", ""))
        if not mark and not self.enable_user_namespaces and state.get("namespace", self.namespace) != self.namespace:
            state = {}  # the site has moved to another namespace; a volume of the old one cannot be used there
        super().load_state(state)
        self.mark, self._marked_at = mark, float(state.get("marked_at", 0))
        uid = str(state.get("pod_uid", ""))
        self._pod = SessionPod(self.api, self.namespace, self.pod_name, mark, uid, self._marked_at, sent=bool(mark))

    def clear_state(self) -> None:
        super().clear_state()
        self.mark, self._marked_at = "", 0.0
        self._pod = SessionPod(self.api, self.namespace, self.pod_name, "", sent=False)

    @property
    def waiting(self) -> bool:
        """Whether no node has the pod yet."""
        pod = self._seen()
        return not pod["spec"].get("nodeName") if pod is not None else not self._pod.uid

    # --- what KubeSpawner calls --------------------------------------------------------------------------------------

    async def _start_reflector(self, kind: str, reflector_class: Any, replace: bool = False, **traits: Any) -> Any:
        reflector = shared_reflector(self, kind, replace, **traits)
        await reflector.settled.wait()
        return reflector

    async def get_pod_manifest(self) -> Any:
        pod = await super().get_pod_manifest()
        pod.metadata.labels = {**(pod.metadata.labels or {}), MARK_LABEL: self.mark}
        return pod

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        patience = float(self.k8s_api_request_retry_timeout)
        async with self.gate:
            self._creating = asyncio.ensure_future(self._pod.create(pod, patience, lambda: self.on_change()))
            await asyncio.shield(self._creating)
        self._say("Kubernetes accepted the pod", 10)
        return bool(self._pod.uid)

    def is_pod_running(self, pod: Any) -> bool:
        self._prepared.set()  # KubeSpawner asks once the pod and all that belongs to it are created
        return self._runs(pod)

    def _runs(self, pod: dict[str, Any] | None) -> bool:
        has_address = pod is not None and bool((pod.get("status") or {}).get("podIP"))
        return has_address and bool(super().is_pod_running(pod))

    async def stop(self, now: bool = False) -> None:  # from within KubeSpawner's start, when a secret cannot be made
        self._pod.unwanted = True
        if not await self._pod.remove(1, self.stop_timeout):
            raise TimeoutError(f"the end of pod {self.pod_name} is not proved")

    # --- start -------------------------------------------------------------------------------------------------------

    async def start_session(self) -> str:
        self._say("Creating the pod", 5)
        self._marked_at = time.time()
        self._pod = SessionPod(self.api, self.namespace, self.pod_name, self.mark, sent=False)
        self._prepared.clear()
        self._look_at_node = time.monotonic() + _NODE_SECONDS
        self.on_change()
        deadline = time.monotonic() + self.start_timeout
        telling = asyncio.ensure_future(self._tell_events())
        try:
            pods = await self._watched(deadline)
            starting = self.start()
            starting.add_done_callback(lambda task: pods.wake(self._key) or task.cancelled() or task.exception())
            url = await self._until_running(deadline, starting)
            self.on_change()  # the name of the volume is known now
            self._say("The pod runs; its server is starting", 80)
            return url
        finally:
            telling.cancel()
            if self._start_future is not None:
                self._start_future.cancel()

    async def _watched(self, deadline: float) -> Any:
        """The reflector of pods, once it has a list of them. Raises StartFailed at the deadline."""
        while True:
            reflector = await self._pods(1)
            if reflector.loaded.is_set():
                return reflector
            if reflector.refusal:
                raise diagnose.refused(reflector.refusal)
            if reflector.silent:
                self._say(_SILENT, 5)
            if time.monotonic() > deadline:
                raise diagnose.silent("No list of pods could be had.")

    async def _until_running(self, deadline: float, starting: asyncio.Future[str] | None = None) -> str:
        """Wait for a pod that runs; its URL. `starting` is KubeSpawner's own start, None for a pod found again."""
        began = time.monotonic()
        while True:
            pods = await self._watched(deadline)
            if self.waiting:
                self.queue_seconds = time.monotonic() - began
            if starting is not None and starting.done():
                return self._outcome(starting)
            pod = self._seen()
            if pod is not None and self._runs(pod) and (starting is None or self._prepared.is_set()):
                url: str = self._get_pod_url(pod)
                return url
            failure = await self.ended() or await self._volume_trouble(pod) or await self._node_trouble(pod)
            if failure is not None:
                raise failure
            if pods.silent:
                self._say(_SILENT)
            if time.monotonic() > deadline:
                raise diagnose.silent("") if pods.silent else self._not_in_time(pod)
            await pods.change(self._key, 1)

    def _not_in_time(self, pod: dict[str, Any] | None) -> StartFailed:
        return diagnose.not_in_time(pod, self.start_timeout, self._evidence.words())

    def _outcome(self, starting: asyncio.Future[str]) -> str:
        try:
            return starting.result()
        except Refused as error:
            raise diagnose.refused(str(error)) from None
        except ApiException as error:  # of the volume claim or the namespace, which KubeSpawner makes
            raise diagnose.refused(str(error.body or error.reason)) from None
        except Occupied as error:
            raise diagnose.occupied(str(error)) from None
        except asyncio.TimeoutError as error:
            if self._prepared.is_set() and not self.pod_reflector.silent:
                raise self._not_in_time(self._seen()) from None
            raise diagnose.silent(str(error)) from None
        except Silent as error:
            raise diagnose.silent(str(error)) from None

    async def _volume_trouble(self, pod: dict[str, Any] | None) -> StartFailed | None:
        """A volume claim that keeps the pod waiting for longer than `volume_grace`."""
        words = diagnose.unschedulable(pod) if pod is not None else None
        if pod is None or words is None or not diagnose.waits_for_volume(words):
            self._volume_since = None
            return None
        if self._volume_since is None:
            self._volume_since = time.monotonic()
        waited = time.monotonic() - self._volume_since
        return await self._evidence.volume(pod, waited, words) if waited > self.volume_grace else None

    async def _node_trouble(self, pod: dict[str, Any] | None) -> StartFailed | None:
        """The pod's node has gone from the cluster: told now and then while the pod does not run there."""
        if pod is None or not pod["spec"].get("nodeName") or time.monotonic() < self._look_at_node:
            return None
        self._look_at_node = time.monotonic() + _NODE_SECONDS
        trouble = await self._evidence.node(pod)
        if trouble == "not ready":
            self._say("The pod's node does not answer at the moment; Kubernetes waits for it")
        return diagnose.deleted(pod, self._evidence.words(), trouble) if trouble == "gone" else None

    async def _tell_events(self) -> None:
        """Events of this pod on the progress page, in plain words."""
        if not self.events_enabled:
            return
        reflector = await self._start_watching_events()
        told: set[str] = set()
        while True:
            for event in self._evidence.events():
                uid = f"{event['metadata']['uid']} {event.get('count')}"
                if uid not in told:
                    told.add(uid)
                    words = diagnose.pod_event_words(str(event.get("reason")), str(event.get("message")))
                    if words is not None:
                        self._say(*words)
            await reflector.change(self._key, 5 if self._pod.uid else 0.2)

    # --- watching ----------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"{self._pod.namespace}/{self._pod.name}"

    @property
    def _evidence(self) -> Evidence:
        return Evidence(self.api, self._pod, self.event_reflector)

    async def _pods(self, seconds: float) -> Any:
        """The reflector of pods; `seconds` are given to it to load."""
        try:
            return await within(self._start_watching_pods(), seconds)
        except asyncio.TimeoutError:
            return self.pod_reflector

    def _seen(self) -> dict[str, Any] | None:
        """Our pod in the reflector's copy, which may be old."""
        reflector = self.pod_reflector
        pod: dict[str, Any] | None = reflector.pods.get(self._key) if reflector is not None else None
        if pod is None or not self._pod.is_ours(pod):
            return None
        if not self._pod.uid:
            self._pod.adopt(pod)
            self.on_change()
        return pod

    async def ended(self) -> StartFailed | None:
        pod = self._seen()
        if pod is not None:
            leaving = "deletionTimestamp" in pod["metadata"] and not self._pod.unwanted
            if leaving and not (pod.get("status") or {}).get("reason"):
                return diagnose.deleted(pod, self._evidence.words(), await self._evidence.node(pod))
            failure = diagnose.pod_failure(pod)
            return diagnose.with_log(failure, await self.log_tail()) if failure is not None else None
        if not self._pod.uid or self._pod.unwanted or self.pod_reflector is None or self.pod_reflector.silent:
            return None
        if not await self._proved_absent():
            return None
        last = self.pod_reflector.end_of(self._pod.uid) or {}
        return diagnose.deleted(last, self._evidence.words(), await self._evidence.node(last))

    async def log_tail(self) -> str:
        pod = self._seen()
        return without_secrets(await self._evidence.log(pod), [self.api_token]) if pod is not None else ""

    async def _proved_absent(self) -> bool:
        """The API server's own word that there is no such pod, now and for good."""
        try:
            return await self._pod.find() is None and self._pod.absence_proved
        except (Silent, Refused):
            return False

    async def poll(self) -> int | None:
        """None unless the end is proved: silence, errors and a pod not yet created all count as running."""
        await self._pods(5)
        pod = self._seen()
        if pod is None:
            if self._creating is not None and not self._creating.done():
                return None
            return 1 if await self._proved_absent() else None
        code = diagnose.exit_code(pod)
        if code is not None and self.delete_stopped_pods:
            self._pod.unwanted = True
            await self._pod.remove(int(self.delete_grace_period), 5)  # what remains is found by its mark
        return code

    # --- stop --------------------------------------------------------------------------------------------------------

    async def stop_session(self, now: bool) -> bool:
        self._pod.unwanted = True
        if self._start_future is not None:
            self._start_future.cancel()
        under_way = [task for task in (self._start_future, self._creating) if task is not None]
        if under_way:
            done, _ = await asyncio.wait(under_way, timeout=self.stop_timeout)
            for task in done:
                task.cancelled() or task.exception()  # looked at, so that nobody calls it forgotten
        if self._creating is not None and not self._creating.done():
            return False
        grace = min(1, self.delete_grace_period) if now else self.delete_grace_period
        reflector = await self._pods(1)
        return await self._pod.remove(int(grace), self.stop_timeout, lambda pause: reflector.change(self._key, pause))

    # --- after a restart of the hub ----------------------------------------------------------------------------------

    async def current_url(self) -> str | None:
        """The URL of the pod that runs, or will; None when it is proved that there is none."""
        deadline = time.monotonic() + self.start_timeout
        pods = await self._watched(deadline)
        while self._seen() is None:
            if await self._proved_absent():
                return None
            if time.monotonic() > deadline:
                raise diagnose.silent("The pod could not be looked for.")
            await pods.change(self._key, 1)
        return await self._until_running(deadline)

    def _say(self, message: str, percent: int | None = None, detail: str = "") -> None:
        if self.progress_log is not None:
            self.progress_log.append(message, percent, detail)
