"""What is asked of an endpoint, when, and for how long: the plan of a load measurement. Data only, all of it bounded.

Exactly one of
- `concurrency`: closed loop. So many users, each of whom asks again when the answer is there. Simple and repeatable,
  but a slow server is asked less: it hides queueing.
- `rates`: open loop. Requests per second that come whether or not the server keeps up, evenly or at random.
- `trace`: open loop. Moments and lengths from a file.

Each value of `concurrency` or `rates` is one step, measured by itself, in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ipytune.endpoints.clocks import Timeouts
from ipytune.endpoints.errors import BadRequest

Concurrency = Annotated[int, Field(ge=1, le=10_000)]
Rate = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

_SET_BY_US = frozenset({"model", "messages", "prompt", "stream", "stream_options", "max_tokens", "min_tokens", "n"})


class Objectives(BaseModel):
    """What a request must keep to count as good, in seconds. An objective that is None asks for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ttft: Seconds | None = None
    tpot: Seconds | None = None
    e2e: Seconds | None = None

    @property
    def named(self) -> dict[str, float]:
        return {name: value for name, value in self if value is not None}


@dataclass(frozen=True)
class Load:
    """The load of one step. value: users (closed), requests per second (open); of a trace, its mean rate."""

    kind: Literal["closed", "open", "trace"]
    value: float

    @property
    def label(self) -> str:
        if self.kind == "closed":
            return f"{self.value:g} at once"
        return f"{self.value:g} requests/s" if self.kind == "open" else f"trace, {self.value:.3g} requests/s"


class Plan(BaseModel):
    """See the module. Durations in seconds.

    duration: of the measured part of a step; None: until `requests` are sent (or the trace ends).
    requests: measured requests of a step, at most.
    warmup: requests at the start of each step that are sent but not measured; None: as many as users, 5 in open loop.
    ramp: seconds over which a step's load grows from nothing; not measured.
    drain: how long answers are awaited once nothing more is sent; what is unfinished then is counted apart.
    arrivals, burstiness: "poisson" draws the gaps; burstiness below 1 bunches them (a gamma distribution with this
        shape; 1 is Poisson), above 1 evens them out.
    trace: JSON lines with `timestamp` (times `trace_scale`: seconds), `input_length` (words), `output_length` (tokens).
    prompt_words: of generated prompts.   prompts: or a file, JSON lines with `prompt` or `messages`, or plain lines.
    unique_prefix: every prompt begins differently, so that no prefix cache answers for the model.
    output_tokens, pin_output: answers are exactly so long (max_tokens, min_tokens, ignore_eos: vLLM, SGLang); not
        pinned it is only a limit, and answers of different lengths are compared.
    until_saturated: end after the first step that the server cannot keep up with.
    good_share: end after the first step in which a smaller share of requests met the objectives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: tuple[Concurrency, ...] = ()
    rates: tuple[Rate, ...] = ()
    trace: Path | None = None
    trace_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    arrivals: Literal["constant", "poisson"] = "poisson"
    burstiness: Annotated[float, Field(gt=0.01, le=100)] = 1.0

    duration: Seconds | None = None
    requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    warmup: Annotated[int, Field(ge=0, le=100_000)] | None = None
    ramp: Annotated[float, Field(ge=0, le=3600)] = 0.0
    drain: Annotated[float, Field(ge=0, le=3600)] = 30.0
    max_in_flight: Annotated[int, Field(ge=1, le=20_000)] = 4096
    seed: int = 0

    api: Literal["chat", "completions"] = "chat"
    prompt_words: Annotated[int, Field(ge=1, le=200_000)] = 128
    prompts: Path | None = None
    unique_prefix: bool = True
    output_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128
    pin_output: bool = True
    options: dict[str, Any] = Field(default_factory=dict)

    objectives: Objectives = Objectives()
    until_saturated: bool = False
    good_share: Annotated[float, Field(gt=0, le=1)] | None = None
    timeouts: Timeouts = Timeouts()
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _duration_unless_said(cls, fields: Any) -> Any:
        # A plan that ends nowhere would be a mistake; a trace ends by itself.
        ends = ("duration", "requests", "trace")
        if isinstance(fields, dict) and all(fields.get(name) is None for name in ends):
            return {**fields, "duration": 30.0}
        return fields

    @model_validator(mode="after")
    def _one_kind_of_load(self) -> Plan:
        if (bool(self.concurrency) + bool(self.rates) + (self.trace is not None)) != 1:
            raise ValueError("give exactly one of concurrency, rates and trace, for example concurrency=(1, 2, 4)")
        if len(self.concurrency) > 64 or len(self.rates) > 64:
            raise ValueError("at most 64 steps")
        if self.good_share is not None and not self.objectives.named:
            raise ValueError("good_share needs objectives, for example objectives={'ttft': 0.5}")
        taken = sorted(_SET_BY_US & self.options.keys())
        if taken:
            raise ValueError(f"options may not hold {', '.join(taken)}: the plan's own fields set them")
        if self.trace is not None and self.prompts is not None:
            raise ValueError("a trace says how long prompts are: give trace or prompts, not both")
        if self.trace is not None and (self.until_saturated or self.ramp):
            raise ValueError("a trace is one step as it is: until_saturated and ramp do not go with it")
        return self

    @classmethod
    def sweep(cls, kind: Literal["concurrency", "rates"], first: float = 1, last: float = 512, **fields: Any) -> Plan:
        """Doubling steps from first to last that end where the server is saturated."""
        values: list[float] = []
        value = first
        while value <= last and len(values) < 64:
            values.append(int(value) if kind == "concurrency" else float(value))
            value *= 2
        return cls.model_validate({kind: tuple(values), "until_saturated": True, **fields})

    def loads(self, trace_rate: float = 0.0) -> tuple[Load, ...]:
        """The steps. trace_rate: mean requests per second of the trace, which only its reader knows."""
        if self.trace is not None:
            return (Load("trace", trace_rate),)
        if self.concurrency:
            return tuple(Load("closed", value) for value in self.concurrency)
        return tuple(Load("open", value) for value in self.rates)

    def warmup_of(self, load: Load) -> int:
        if self.warmup is not None:
            return self.warmup
        return {"closed": int(load.value), "open": 5, "trace": 0}[load.kind]

    def request_fields(self, output_tokens: int) -> dict[str, Any]:
        """Of every request, besides model and prompt."""
        pinned = {"min_tokens": output_tokens, "ignore_eos": True} if self.pin_output else {}
        return {**self.options, "max_tokens": output_tokens, **pinned}


def planned(**fields: Any) -> Plan:
    """A Plan from what a person typed. Raises BadRequest that names the field and what it may be."""
    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        words = "; ".join(finding.replace("Value error, ", "").removeprefix(": ") for finding in found)
        raise BadRequest("This is no plan for a load.", words.rstrip(".") + ".", "Change what is named.") from None
