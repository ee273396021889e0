"""How an engine is to be started: what the two engines have in common for the one who starts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EngineName = Literal["vllm", "transformers"]
Wanted = Literal["auto", "vllm", "transformers"]


@dataclass(frozen=True)
class Plan:
    """command, environment: of the engine; the environment is added to ours, `without` taken from it. No secrets.
    key_variable: the variable through which the engine takes its key; None when it reads the file beside its port.
    port: where it will listen; None when it writes that into the file `port` of its directory.
    max_lora_rank: the greatest rank of an adapter that it takes; None when there is no limit, 0 when it takes none.
    start_seconds: after which a start that has not come to its end has failed.
    """

    engine: EngineName
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    key_variable: str | None = None
    port: int | None = None
    max_lora_rank: int | None = None
    start_seconds: float = 300.0
