"""The mock's own book: counts, when each token was really written, and vLLM's metrics of the same.

Kept cheaply while tokens are written, two appends for each; worked out when somebody asks. Bounded: the oldest requests
are forgotten first.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ipytune.mock.records import Stats

MOST_REQUESTS = 20_000
MOST_WRITES = 4_000_000
SHOWN_REQUESTS = 100


class Entry:
    """One request, while it goes on and after. Moments are nanoseconds."""

    __slots__ = ("arrival", "counts", "ended", "id", "model", "prompt_tokens", "reasoning", "status", "writes")

    def __init__(self, name: str, model: str, arrival: int, prompt_tokens: int) -> None:
        self.id = name
        self.model = model
        self.arrival = arrival
        self.prompt_tokens = prompt_tokens
        self.writes = array("q")
        self.counts = array("i")
        self.reasoning = 0
        self.status = 200
        self.ended = "open"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "arrival": self.arrival / 1e9,
            "writes": [moment / 1e9 for moment in self.writes],
            "counts": self.counts.tolist(),
            "reasoning": self.reasoning,
            "prompt_tokens": self.prompt_tokens,
            "ended": self.ended,
            "status": self.status,
        }


class Ledger:
    def __init__(self) -> None:
        self.connections = 0  # open ones, so not forgotten at a reset
        self._open = 0
        self.clear()

    def clear(self) -> None:
        self.entries: deque[Entry] = deque()
        self.asked: deque[dict[str, Any]] = deque(maxlen=SHOWN_REQUESTS)
        self.tokens = 0
        self.prompt_tokens = 0
        self.worst_lateness = 0  # nanoseconds
        self.blocked = 0
        self.requests = 0
        self.peak = self._open
        self.ends = {"done": 0, "cancelled": 0, "refused": 0, "cut": 0}
        self._kept = 0
        self._metrics: dict[str, _Metrics] = {}

    def began(self, entry: Entry) -> None:
        self.requests += 1
        self.entries.append(entry)
        self.prompt_tokens += entry.prompt_tokens
        self._open += 1
        self.peak = max(self.peak, self._open)

    def ended(self, entry: Entry, how: str, finish_reason: str = "") -> None:
        entry.ended = how
        self._open -= 1
        self.ends[how] += 1
        self._kept += len(entry.writes)
        while len(self.entries) > MOST_REQUESTS or (self._kept > MOST_WRITES and len(self.entries) > 1):
            oldest = self.entries.popleft()
            self._kept -= len(oldest.writes) if oldest.ended != "open" else 0
        if how == "done":
            self._metrics.setdefault(entry.model, _Metrics()).observe(entry, finish_reason)

    def stats(self, waiting: int) -> Stats:
        return Stats(
            requests=self.requests,
            completed=self.ends["done"],
            cancelled=self.ends["cancelled"],
            refused=self.ends["refused"],
            cut=self.ends["cut"],
            in_flight=self._open,
            waiting=waiting,
            peak_in_flight=self.peak,
            tokens=self.tokens,
            prompt_tokens=self.prompt_tokens,
            connections=self.connections,
            blocked=self.blocked,
            worst_lateness=self.worst_lateness / 1e9,
        )

    def truth(self) -> list[dict[str, Any]]:
        return [entry.as_json() for entry in self.entries]

    def prometheus(self, models: Iterable[str], waiting: int) -> str:
        """The metrics by the names that vLLM gives them, in Prometheus' text form."""
        lines = []
        for model in models:
            metrics = self._metrics.get(model, _Metrics())
            running = sum(entry.ended == "open" and entry.model == model for entry in self.entries)
            # Which model a waiting request is for does not matter: a slot is a slot.
            lines += metrics.lines(model, max(running - waiting, 0), waiting)
        return "\n".join([*lines, ""])


# Upper bounds in seconds, those of vLLM, so that its dashboards and queries fit.
_FIRST = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    *(80.0, 160.0, 640.0, 2560.0),
)
_BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    80.0,
)
_WHOLE = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
    *(960.0, 1920.0, 7680.0),
)


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, label: str) -> list[str]:
        seen, lines = 0, [f"# TYPE {name} histogram"]
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            seen += count
            lines.append(f'{name}_bucket{{le="{bound}",{label}}} {seen}')
        return [*lines, f"{name}_count{{{label}}} {seen}", f"{name}_sum{{{label}}} {self.total!r}"]


class _Metrics:
    """Of the answers of one model that were written to their end."""

    def __init__(self) -> None:
        self.first = _Histogram(_FIRST)
        self.between = _Histogram(_BETWEEN)
        self.per_token = _Histogram(_BETWEEN)
        self.whole = _Histogram(_WHOLE)
        self.prompt = self.written = 0
        self.reasons: dict[str, int] = {}

    def observe(self, entry: Entry, finish_reason: str) -> None:
        self.reasons[finish_reason] = self.reasons.get(finish_reason, 0) + 1
        self.prompt += entry.prompt_tokens
        tokens = sum(entry.counts)
        self.written += tokens
        if not entry.writes:
            return
        writes = entry.writes
        self.first.observe((writes[0] - entry.arrival) / 1e9)
        self.whole.observe((writes[-1] - entry.arrival) / 1e9)
        for before, after in zip(writes, writes[1:], strict=False):
            self.between.observe((after - before) / 1e9)
        if tokens > 1 and len(writes) > 1:
            self.per_token.observe((writes[-1] - writes[0]) / 1e9 / (tokens - 1))

    def lines(self, model: str, running: int, waiting: int) -> list[str]:
        quoted = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        label = f'engine="0",model_name="{quoted}"'
        plain = {
            "num_requests_running gauge": running,
            "num_requests_waiting gauge": waiting,
            "prompt_tokens_total counter": self.prompt,
            "generation_tokens_total counter": self.written,
        }
        lines = []
        for name_and_type, value in plain.items():
            name = name_and_type.split()[0]
            lines += [f"# TYPE vllm:{name_and_type}", f"vllm:{name}{{{label}}} {value}"]
        lines.append("# TYPE vllm:request_success_total counter")
        for reason in sorted({"stop", "length", *self.reasons}):
            count = self.reasons.get(reason, 0)
            lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
        for name, histogram in (
            ("time_to_first_token_seconds", self.first),
            ("inter_token_latency_seconds", self.between),
            ("request_time_per_output_token_seconds", self.per_token),
            ("e2e_request_latency_seconds", self.whole),
        ):
            lines += histogram.lines(f"vllm:{name}", label)
        return lines


def added(pages: list[str]) -> str:
    """The metrics of several processes: each line's values added up.

    >>> added(["a_total 1\\n", "a_total 2\\n"])
    'a_total 3\\n'
    """
    sums: dict[str, float] = {}
    for page in pages:
        for line in page.splitlines():
            if line.startswith("#"):
                sums.setdefault(line, 0)
                continue
            series, _, value = line.rpartition(" ")
            sums[series] = sums.get(series, 0) + (float(value) if "." in value or "e" in value else int(value))
    return "".join(f"{line}\n" if line.startswith("#") else f"{line} {value}\n" for line, value in sums.items())


def merged(path: str, answers: list[Any]) -> Mapping[str, Any]:
    """What several processes answered, as one."""
    if path == "/mock/stats":
        return asdict(Stats.merged([Stats(**answer) for answer in answers]))
    if path == "/mock/truth":
        requests = [item for answer in answers for item in answer["requests"]]
        return {"requests": sorted(requests, key=lambda item: item["arrival"])}
    if path == "/mock/requests":
        return {"requests": [item for answer in answers for item in answer["requests"]][-SHOWN_REQUESTS:]}
    first: Mapping[str, Any] = answers[0]
    return first
