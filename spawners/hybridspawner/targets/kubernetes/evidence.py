"""What can be learnt about a pod in trouble: its log, its events, its node and its volume claims.

Everything here is best effort and short: a missing right or a silent server gives less evidence, never an error.
"""

from __future__ import annotations

from typing import Any

from ...diagnose import StartFailed
from ...diagnose import kubernetes as diagnose
from .pod import Refused, SessionPod, Silent, answer

_SECONDS = 2.0
"""For each question: a user waits for the message."""
_LOG_LINES = 30


class Evidence:
    """About one pod. `events` is the reflector of events, None where the site has none."""

    def __init__(self, api: Any, pod: SessionPod, events: Any) -> None:
        self._api, self._pod, self._events = api, pod, events

    def events(self) -> list[dict[str, Any]]:
        """The events about this very pod, oldest first."""
        if self._events is None or not self._pod.uid:
            return []
        found = [e for e in list(self._events.resources.values()) if e["involvedObject"].get("uid") == self._pod.uid]
        return sorted(found, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))

    def words(self) -> list[str]:
        return [f"{event.get('reason')}: {event.get('message')}" for event in self.events()]

    async def log(self, pod: dict[str, Any], container: str = "notebook") -> str:
        """The tail of the server's log, of its last run if it was restarted; empty if there is none."""
        states = (pod.get("status") or {}).get("containerStatuses") or []
        state: dict[str, Any] = next((s for s in states if s.get("name") == container), {})
        ended = "terminated" in (state.get("state") or {})
        before = "terminated" in (state.get("lastState") or {})
        if not ended and not before:
            return ""
        try:
            text = await answer(
                self._api.read_namespaced_pod_log(
                    *(self._pod.name, self._pod.namespace),
                    container=container,
                    tail_lines=_LOG_LINES,
                    previous=before and not ended,
                    _request_timeout=_SECONDS,
                )
            )
        except (Silent, Refused):
            return ""
        return str(text or "").strip()

    async def node(self, pod: dict[str, Any]) -> str | None:
        """What speaks against the pod's node: `diagnose.node_trouble`; None also when it may not be asked."""
        name = (pod.get("spec") or {}).get("nodeName")
        if not name:
            return None
        try:
            node = await answer(self._api.read_node(name, _request_timeout=_SECONDS))
        except (Silent, Refused):
            return None
        return diagnose.node_trouble(None if node is None else self._api.api_client.sanitize_for_serialization(node))

    async def volume(self, pod: dict[str, Any], waited: float, words: str) -> StartFailed | None:
        """The claim of the pod that is not bound, with what its events say; None if all are."""
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"].get("volumes") or [] if _is_claim(v)]
        try:
            for claim in claims:
                found = await answer(
                    self._api.read_namespaced_persistent_volume_claim(
                        claim, self._pod.namespace, _request_timeout=_SECONDS
                    )
                )
                phase = None if found is None else str(found.status.phase)
                if phase != "Bound":
                    return diagnose.unbound_volume(claim, phase, await self._claim_words(claim) or words, waited)
        except (Silent, Refused):
            return diagnose.unbound_volume(", ".join(claims), "Pending", words, waited)
        return None

    async def _claim_words(self, claim: str) -> str:
        selector = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}"
        found = await answer(
            self._api.list_namespaced_event(self._pod.namespace, field_selector=selector, _request_timeout=_SECONDS)
        )
        events = [] if found is None else list(found.items)
        events.sort(key=lambda e: str(e.last_timestamp or e.event_time or ""))
        return f"{events[-1].reason}: {events[-1].message}" if events else ""


def _is_claim(volume: dict[str, Any]) -> bool:
    return bool(volume.get("persistentVolumeClaim"))
