"""One pod from its creation to the proof that it is gone. The API server's own words count here, not a copy of them.

- A request to create that got no answer may still be carried out: its pod counts as possible until a later absence
  proves otherwise, and nobody interrupts such a request.
- A pod is known by its mark (a label): a name that a later or another hub's pod has taken is never mistaken for ours.
- Gone means: the server says 404, or the name now belongs to another pod.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes_asyncio.client.exceptions import ApiException

MARK_LABEL = "oberalp/mark"
REQUEST_SECONDS = 5.0
CREATE_PATIENCE = 15.0
"""Seconds for which a request to create may still be carried out when its sender has gone (webhooks: up to 10 s)."""
SETTLED = 3.0
"""Seconds for which an absence must last when a request to create was never answered."""
ASK_AGAIN = 10.0
FORCE_AFTER = 15.0
"""Seconds after which a pod is removed without its node's confirmation: the node may be lost."""

_CANNOT_BEGIN = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
)

log = logging.getLogger(__name__)


class Silent(Exception):
    """The API server did not answer, or not to the point: nothing is known, the request may have been carried out."""


class Refused(Exception):
    """The API server said no. `status` is the HTTP status, the message its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Occupied(Exception):
    """The pod's name is taken by a pod that is not ours to remove, or that does not end."""


async def answer(call: Awaitable[Any]) -> Any:
    """The answer to one request; None for 404. Raises Silent or Refused."""
    try:
        return await call
    except ApiException as error:
        status = int(error.status or 0)
        if status == 404:
            return None
        if 400 <= status < 500 and status not in (408, 429):
            raise Refused(status, str(error.body or error.reason)) from None
        raise Silent(f"HTTP {status}: {str(error.body or error.reason)}") from None
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        raise Silent(f"{type(error).__name__} {error}".strip()) from None


class SessionPod:
    """The pod `name` that carries `mark`; an empty mark (sessions of older releases) takes any pod of that name.

    `marked_at` is when the session was recorded, in seconds since 1970. `uid` is known once the server has answered.
    """

    def __init__(
        self, api: Any, namespace: str, name: str, mark: str, uid: str = "", marked_at: float = 0.0, sent: bool = True
    ) -> None:
        self.api, self.namespace, self.name, self.mark, self.uid = api, namespace, name, mark, uid
        self._possible_until = marked_at + CREATE_PATIENCE
        self._open = int(sent and not uid)
        """Requests to create of which it is not known what became; a hub that died may have sent one."""
        self.unwanted = False
        self._absent_since: float | None = None

    def is_ours(self, pod: dict[str, Any]) -> bool:
        """Whether `pod` (its JSON) is this one."""
        if not self.mark:
            return not self.uid or bool(pod["metadata"].get("uid") == self.uid)
        return bool((pod["metadata"].get("labels") or {}).get(MARK_LABEL) == self.mark)

    async def find(self) -> dict[str, Any] | None:
        """The pod as the server has it now; None if it is not there. Raises Silent or Refused."""
        pod = await self._read()
        if pod is None or not self.is_ours(pod):
            if self._absent_since is None:
                self._absent_since = time.monotonic()
            return None
        self._absent_since = None
        self.adopt(pod)
        return pod

    def adopt(self, pod: dict[str, Any]) -> None:
        """Remember the uid of a pod that is ours; one of the requests has made it."""
        if pod["metadata"]["uid"] != self.uid:
            self.uid = pod["metadata"]["uid"]
            self._open = max(0, self._open - 1)

    @property
    def unanswered(self) -> bool:
        """Whether a request to create may still be carried out."""
        return self._open > 0

    @property
    def absence_proved(self) -> bool:
        """Whether the absence that find() saw is final."""
        if self._absent_since is None:
            return False
        if not self.unanswered:
            return True
        return time.time() > self._possible_until and time.monotonic() - self._absent_since > SETTLED

    # --- create ------------------------------------------------------------------------------------------------------

    async def create(self, manifest: Any, patience: float, changed: Callable[[], None]) -> None:
        """Create the pod, again and again while the server is silent, for `patience` seconds.

        An earlier session's pod of that name is removed first. Ends without a pod once `unwanted` is set.
        Raises Silent, Refused or Occupied. Not to be cancelled: await it shielded.
        """
        deadline = time.monotonic() + patience
        while not self.unwanted:
            self._open += 1
            self._possible_until = time.time() + REQUEST_SECONDS + CREATE_PATIENCE
            try:
                made = await answer(
                    self.api.create_namespaced_pod(self.namespace, manifest, _request_timeout=REQUEST_SECONDS)
                )
                if made is None:
                    raise Refused(404, f'namespaces "{self.namespace}" not found')
                self.adopt(self._as_json(made))
                changed()
                return
            except Silent as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("No answer to the creation of pod %s yet: %s", self.name, error)
            except Refused as error:
                self._open -= 1
                if error.status != 409:
                    raise
                if "AlreadyExists" in str(error) and await self._taken(deadline):
                    changed()
                    return
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.5)

    async def _taken(self, deadline: float) -> bool:
        """The name is taken: True if by our own earlier attempt; else what holds it is removed. Raises Occupied."""
        try:
            pod = await self._read()
        except Silent:
            return False
        if pod is None:
            return False
        if self.is_ours(pod):
            self.adopt(pod)
            return True
        mark = (pod["metadata"].get("labels") or {}).get(MARK_LABEL, "")
        if mark and self.mark and hub_of(mark) != hub_of(self.mark):
            raise Occupied(f"A pod named {self.name} belongs to another hub ({hub_of(mark)}) in {self.namespace}.")
        log.info("Pod %s of an earlier session is removed first", self.name)
        earlier = SessionPod(self.api, self.namespace, self.name, mark, pod["metadata"]["uid"])
        if not await earlier.remove(1, max(5.0, deadline - time.monotonic())):
            raise Occupied(f"The pod {self.name} of an earlier session has not ended.")
        return False

    # --- remove ------------------------------------------------------------------------------------------------------

    async def remove(
        self, grace: int, seconds: float, wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> bool:
        """Delete the pod; True once it is proved gone, False if that could not be had within `seconds`.

        `grace` seconds are given to its processes. The node's confirmation is not waited for once nothing runs in the
        pod any more, or after FORCE_AFTER seconds. `wait(seconds)` may return early.
        """
        began, asked, forced, pause = time.monotonic(), float("-inf"), False, 0.1
        trouble = ""
        while True:
            try:
                pod = await self.find()
                now = time.monotonic()
                late = now - began > FORCE_AFTER
                force = late or (pod is not None and "deletionTimestamp" in pod["metadata"] and nothing_runs(pod))
                if pod is None and self.absence_proved:
                    return True
                if pod is not None and (now - asked > ASK_AGAIN or (force and not forced)):
                    asked, forced = now, force
                    await self._delete(0 if force else grace)
                    if late:
                        log.warning("Pod %s does not end by itself and is removed by force", self.name)
            except (Silent, Refused) as error:
                if str(error) != trouble:
                    log.warning("Cannot remove pod %s yet: %s", self.name, error)
                trouble = str(error)
            if time.monotonic() - began > seconds:
                return False
            await wait(pause)
            pause = min(pause * 1.5, 1.0)

    async def _delete(self, grace: int) -> None:
        options = {"gracePeriodSeconds": grace, "preconditions": {"uid": self.uid}}
        try:
            await answer(
                self.api.delete_namespaced_pod(
                    self.name, self.namespace, body=options, _request_timeout=REQUEST_SECONDS
                )
            )
        except Refused as error:
            if error.status != 409:  # 409: the name is another pod's by now, which find() will see
                raise

    async def _read(self) -> dict[str, Any] | None:
        found = await answer(self.api.read_namespaced_pod(self.name, self.namespace, _request_timeout=REQUEST_SECONDS))
        return None if found is None else self._as_json(found)

    def _as_json(self, pod: Any) -> dict[str, Any]:
        as_json: dict[str, Any] = self.api.api_client.sanitize_for_serialization(pod)
        return as_json


def nothing_runs(pod: dict[str, Any]) -> bool:
    """Whether the node has said that every container of a pod has ended or cannot begin."""
    status = pod.get("status") or {}
    states = [s.get("state") or {} for s in status.get("containerStatuses") or []]
    wanted = len(pod["spec"].get("containers") or [])
    if len(states) < wanted or status.get("initContainerStatuses"):
        return status.get("phase") in ("Succeeded", "Failed")
    return all("terminated" in s or (s.get("waiting") or {}).get("reason") in _CANNOT_BEGIN for s in states)


def hub_of(mark: str) -> str:
    """The hub that made a mark (`session.new_mark`)."""
    return mark.rpartition("-")[0]
