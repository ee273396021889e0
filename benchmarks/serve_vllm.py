"""Claim: our client counts a real vLLM's tokens exactly, and its mean TTFT is within 5 ms or 1 % of the server's own.

    IPYTUNE_VLLM=PYTHON python -m benchmarks.serve_vllm [--requests 24] [--output benchmarks/results/serve_vllm.json]

Starts vLLM with `serve` and the bundled model, asks one question after another, and compares with what the server
itself measures (/metrics): the tokens of all requests with its counters, and the mean of our TTFT with the mean of its
`time_to_first_token_seconds`, which runs inside the server from a request's arrival. The difference is what HTTP, its
event loop and ours add; on a CPU whose cores the engine's steps hold, it grows with a step's time. One request at a
time: with more, the queue would be what is compared. Says also how long the start took, and how long an adapter takes
to be loaded into the running server. Exit status 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx

from ipytune.endpoints import Endpoint, chat
from ipytune.endpoints.serve import Server, serve
from ipytune.models import SMOLLM2, resolve

ALLOWED, ALLOWED_SHARE = 0.005, 0.01  # seconds, or this share of the server's own; the larger counts
TOKENS = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/serve_vllm.json"))
    options = parser.parse_args()
    if not os.environ.get("IPYTUNE_VLLM"):
        print("Set IPYTUNE_VLLM to the python of an environment that holds vLLM.", file=sys.stderr)
        return 1
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        adapter = write_adapter(Path(folder) / "adapter")
        began = time.monotonic()
        with serve(SMOLLM2, engine="vllm", extra=("--max-model-len", "1024")) as server:
            started = time.monotonic() - began
            began = time.monotonic()
            tuned = server.load_adapter(adapter, "tuned", any_base=True)
            loaded = time.monotonic() - began
            measured = {model.model: compare(server, model, options.requests) for model in (server.base, tuned)}
    holds = all(one["tokens_equal"] and agrees(one) for one in measured.values())
    near = f"within {ALLOWED * 1000:g} ms or {ALLOWED_SHARE:.0%} of its own"
    report = {
        "claim": f"tokens equal the server's count; mean TTFT {near}",
        "holds": holds,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "start_seconds": started,
        "adapter_load_seconds": loaded,
        "requests": options.requests,
        "models": measured,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "load_before": load_before,
        "load_after": os.getloadavg(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if holds else 1


def agrees(measured: dict[str, Any]) -> bool:
    return abs(measured["ttft_difference"]) <= max(ALLOWED, ALLOWED_SHARE * measured["ttft_of_server_mean"])


def compare(server: Server, endpoint: Endpoint, requests: int) -> dict[str, Any]:
    """Seconds and counts of `requests` answers, ours beside the server's own."""
    chat(endpoint, "Warm up.", max_tokens=TOKENS)  # opens the connection, and what the engine does once
    before = counters(server.base)
    answers = [
        chat(endpoint, f"Question {number}: write a line about the sea.", max_tokens=TOKENS, temperature=0).metrics
        for number in range(requests)
    ]
    after = counters(server.base)
    gained = {name: after[name] - before[name] for name in after}
    ours = [one.ttft for one in answers if one.ttft is not None]
    server_ttft = gained["time_to_first_token_seconds_sum"] / gained["time_to_first_token_seconds_count"]
    counted = (sum(one.prompt_tokens or 0 for one in answers), sum(one.output_tokens for one in answers))
    of_server = (int(gained["prompt_tokens_total"]), int(gained["generation_tokens_total"]))
    return {
        "tokens_equal": counted == of_server,
        "tokens": {"prompt": counted[0], "output": counted[1]},
        "tokens_of_server": {"prompt": of_server[0], "output": of_server[1]},
        "ttft_mean": statistics.fmean(ours),
        "ttft_of_server_mean": server_ttft,
        "ttft_difference": statistics.fmean(ours) - server_ttft,
        "tokens_per_second_median": statistics.median(
            [one.tokens_per_second for one in answers if one.tokens_per_second is not None]
        ),
    }


def counters(endpoint: Endpoint) -> dict[str, float]:
    """vLLM's own sums, over all models that it serves."""
    names = (
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
        "prompt_tokens_total",
        "generation_tokens_total",
    )
    key = endpoint.read_key()
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
    text = httpx.get(f"{endpoint.api_root.removesuffix('/v1')}/metrics", headers=headers, trust_env=False).text
    return {
        name: sum(float(value) for value in re.findall(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))
        for name in names
    }


def write_adapter(directory: Path) -> Path:
    """An adapter of the bundled model that has learned noise."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(resolve(SMOLLM2))
    peft: Any = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    peft.save_pretrained(str(directory))
    return directory


if __name__ == "__main__":
    sys.exit(main())
