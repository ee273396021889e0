"""From a process that listens to a server that answers: wait for its port, load its weights, ask for one token."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from ipytune.endpoints.client import blot
from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.endpoints.engines.kept import Kept
from ipytune.endpoints.engines.log import diagnose, stage
from ipytune.endpoints.engines.plan import Plan
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.refusals import server_words

Say = Callable[[str], None]

_LOOK = 0.1  # seconds


class PortTaken(ServeFailed):
    """Another program was quicker with the port."""


def wait_until_healthy(kept: Kept, plan: Plan, directory: Path, host: str, seconds: float, say: Say) -> str:
    """The root URL (without /v1), once /health answers 200; what the log tells meanwhile is said, once each.

    Raises ServeFailed when it ends, or is not ready in time.
    """
    deadline = time.monotonic() + seconds
    reader = _LogReader(kept, say)
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while True:
            reader.look()
            if not kept.running:
                raise ended(kept)
            port = plan.port or _written_port(directory)
            if port is not None:
                root = f"http://{_reach(host)}:{port}"
                try:
                    if http.get(f"{root}/health").status_code == 200:
                        return root
                except httpx.TransportError:
                    pass  # not listening yet
            if time.monotonic() > deadline:
                raise ServeFailed(
                    f"The server was not ready after {seconds:g} s.",
                    "It is still starting; libraries and weights on a busy network file system can take long.",
                    "Try again (the second start is quicker), or allow more: serve(..., timeout=3600).",
                    kept.tail(15),
                )
            time.sleep(_LOOK)


def load(endpoint: Endpoint, kept: Kept, seconds: float, say: Say) -> None:
    """Have transformers' server load the model now, which it would do at the first request. Raises ServeFailed."""
    problem = "it did not say that the model is ready"
    url = f"{endpoint.api_root.removesuffix('/v1')}/load_model"
    said = -1
    try:
        with (
            httpx.Client(trust_env=False, timeout=seconds) as http,
            http.stream("POST", url, json={"model": endpoint.model}, headers=_headers(endpoint)) as response,
        ):
            for line in response.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if event.get("status") == "ready":
                    return
                if event.get("status") == "error":
                    problem = str(event.get("message", problem))
                percent = _percent(event)
                if percent is not None and percent // 20 > said:
                    said = percent // 20
                    say(f"Loading weights {percent} %")
    except httpx.HTTPError as error:
        if not kept.running:
            raise ended(kept) from None
        problem = str(error)
    cause = diagnose(problem, None)
    raise ServeFailed(
        f"The server could not load {endpoint.model}.",
        cause.why or f"Its reason: {problem.rstrip('.')}.",
        cause.remedy or "Check that the model is one of transformers' and that its files are complete.",
        kept.tail(15),
    )


def first_token(endpoint: Endpoint, kept: Kept, seconds: float) -> None:
    """One token of a real answer: what listens may still be unable to compute. Raises ServeFailed."""
    body = {"model": endpoint.model, "prompt": "1", "max_tokens": 1}
    try:
        with httpx.Client(trust_env=False, timeout=seconds) as http:
            response = http.post(f"{endpoint.api_root}/completions", json=body, headers=_headers(endpoint))
    except httpx.HTTPError as error:
        if not kept.running:
            raise ended(kept) from None
        raise ServeFailed(
            f"{endpoint.model} does not answer.",
            f"The server listens, and a request for one token failed: {type(error).__name__}.",
            "The end of its log may say why.",
            kept.tail(15),
        ) from None
    if response.status_code != 200:
        words = blot(server_words(response.content, response.headers.get("content-type", "")), endpoint.read_key())
        cause = diagnose(f"{words}\n{kept.tail(60)}", None)
        raise ServeFailed(
            f"{endpoint.model} does not answer.",
            cause.why or f"A request for one token got {response.status_code}: {words}",
            cause.remedy or "The end of its log may say why.",
            kept.tail(15),
        )


def ended(kept: Kept) -> ServeFailed:
    """The error for a process that ended while it was starting."""
    text = kept.log_text()
    cause = diagnose(text, kept.code)
    kind = PortTaken if cause.port_taken else ServeFailed
    return kind("The server ended while it was starting.", cause.why, cause.remedy, kept.tail(15))


class _LogReader:
    """Says what the log tells, as it grows."""

    def __init__(self, kept: Kept, say: Say) -> None:
        self._kept, self._say = kept, say
        self._at = 0
        self._last = ""

    def look(self) -> None:
        size = self._kept.log_size()
        if size == self._at:
            return
        for line in re.split(r"[\r\n]+", self._kept.log_text(self._at)):
            told = stage(line)
            if told is not None and told != self._last:
                self._last = told
                self._say(told)
        self._at = size


def _percent(event: dict[str, object]) -> int | None:
    progress = event.get("progress")
    if not isinstance(progress, dict):
        return None
    current, total = progress.get("current"), progress.get("total")
    return int(100 * current / total) if isinstance(current, int) and isinstance(total, int) and total else None


def _headers(endpoint: Endpoint) -> dict[str, str]:
    key = endpoint.read_key()
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}


def _reach(host: str) -> str:
    """The address at which this machine reaches what listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _written_port(directory: Path) -> int | None:
    file = directory / "port"
    return int(file.read_text(encoding="ascii")) if file.exists() else None
