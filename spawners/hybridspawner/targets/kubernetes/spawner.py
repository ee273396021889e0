"""A session as a pod: KubeSpawner, with an early and honest end of a start that can never succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jupyterhub.utils import exponential_backoff
from kubernetes_asyncio.client.exceptions import ApiException
from kubespawner import KubeSpawner

from ...diagnose import StartFailed
from ...diagnose import kubernetes as diagnose
from ...events import EventLog


class KubernetesSessionSpawner(KubeSpawner):
    """KubeSpawner, unchanged but for what is here: evidence ends a start at once, events go to the progress page."""

    progress_log: EventLog | None = None
    on_change: Callable[[], None] = staticmethod(lambda: None)
    mark = ""
    waiting = False

    async def start_session(self) -> str:
        self._say("Creating the pod", 5)
        self.on_change()
        starting = asyncio.ensure_future(self.start())
        telling = asyncio.ensure_future(self._tell_events())
        try:
            while not starting.done():
                await asyncio.wait([starting], timeout=0.5)
                if not starting.done() and (failure := await self.ended()) is not None:
                    raise failure
            url: str = await self._result(starting)
            self.on_change()  # the name of the volume is known now
            self._say("The pod runs; its server is starting", 80)
            return url
        finally:
            starting.cancel()
            telling.cancel()

    async def _result(self, starting: asyncio.Future[str]) -> str:
        try:
            return await starting
        except ApiException as error:
            raise self._refused(error) from None
        except asyncio.TimeoutError:
            words = diagnose.unschedulable(self._pod() or {})
            why = "No node could take it." if words else "It was not running in time."
            what = "The pod did not start in time and was taken back."
            raise StartFailed(
                what, why, "Try a smaller profile or another target.", words or "", "queue_timeout"
            ) from None

    @staticmethod
    def _refused(error: ApiException) -> StartFailed:
        words = str(error.body or error.reason)
        if "exceeded quota" in words:
            return StartFailed(
                "Kubernetes refused the pod.",
                "The quota of the namespace is used up.",
                "Stop another session, or ask for less.",
                words,
                "quota",
            )
        return StartFailed(
            "Kubernetes refused the pod.",
            "Its words are below.",
            "Change the request, or show them to the site's support.",
            words,
            "refused",
        )

    def _pod(self) -> dict[str, object] | None:
        reflector = self.pod_reflector
        return reflector.pods.get(f"{self.namespace}/{self.pod_name}") if reflector is not None else None

    async def ended(self) -> StartFailed | None:
        pod = self._pod()
        failure = diagnose.pod_failure(pod) if pod is not None else None
        return diagnose.with_log(failure, await self._log_tail()) if failure is not None else None

    async def _log_tail(self) -> str:
        try:
            text = await self.api.read_namespaced_pod_log(
                self.pod_name, self.namespace, container="notebook", tail_lines=30, _request_timeout=5
            )
        except (ApiException, OSError, asyncio.TimeoutError):
            return ""
        return str(text or "").strip()

    async def _tell_events(self) -> None:
        """Events of this pod, in plain words; those of an earlier pod of the same name are left out."""
        await self._start_watching_events()
        earlier = {event["involvedObject"].get("uid") for event in self.event_reflector.events}
        told: set[str] = set()
        while True:
            for event in self.event_reflector.events:
                about, uid = event["involvedObject"], event["metadata"]["uid"]
                if about["name"] == self.pod_name and about.get("uid") not in earlier and uid not in told:
                    told.add(uid)
                    words = diagnose.pod_event_words(str(event.get("reason")), str(event.get("message")))
                    if words is not None:
                        self._say(*words)
            await asyncio.sleep(0.5)

    async def stop_session(self, now: bool) -> bool:
        await self.stop(now)
        await exponential_backoff(
            self._is_absent, f"pod {self.pod_name} is still there", timeout=self.k8s_api_request_retry_timeout
        )
        return True

    async def _is_absent(self) -> bool:
        """The API server's own word that there is no such pod, not the reflector's copy."""
        try:
            await self.api.read_namespaced_pod(self.pod_name, self.namespace, _request_timeout=5)
        except ApiException as error:
            if error.status == 404:
                return True
            self.log.warning("Cannot look for pod %s: %s", self.pod_name, error.reason)
        return False

    async def current_url(self) -> str | None:
        return None

    def _say(self, message: str, percent: int | None = None, detail: str = "") -> None:
        if self.progress_log is not None:
            self.progress_log.append(message, percent, detail)
