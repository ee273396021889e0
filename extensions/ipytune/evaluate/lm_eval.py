"""Tasks of EleutherAI's lm-evaluation-harness through the same endpoint record. It runs as a child process.

What it promises:
- The key goes through the child's environment: never into arguments, which everybody on a node can read.
- Tasks that need probabilities of given text (multiple_choice, loglikelihood) are refused for chat endpoints and for
  servers without `echo` and `logprobs`, before anything is asked: chat APIs give them for output only (lm-eval #1196).
- A child is ended with us, also by an interrupt.

lm-eval is no dependency: pip install 'lm-eval[api]'. Names of models and options: its documentation, version 0.4.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipytune.endpoints import background
from ipytune.endpoints.client import blot
from ipytune.endpoints.errors import BadRequest, EndpointError
from ipytune.endpoints.records import Endpoint

KEY = "OPENAI_API_KEY"  # the variable that its local-completions and local-chat-completions read
NEED_PROMPT_LOGPROBS = frozenset({"multiple_choice", "loglikelihood", "loglikelihood_rolling"})
_STOP_SECONDS = 10.0

# Run by the Python that has lm-eval: which kind of request each task makes, as one line of JSON.
_KINDS = """
import json, sys
from lm_eval.tasks import TaskManager, get_task_dict
def kinds(tasks):
    for name, task in tasks.items():
        if isinstance(task, dict):
            yield from kinds(task)
        else:
            yield str(getattr(name, "group", name)), str((task[1] if isinstance(task, tuple) else task).OUTPUT_TYPE)
own = sys.argv[1] or None
print("\\n" + json.dumps(dict(kinds(get_task_dict(sys.argv[2:], TaskManager(include_path=own))))))
"""


class LmEvalFailed(RuntimeError):
    """The child ended with an error; the message ends with its last lines."""


@dataclass(frozen=True)
class Result:
    """What lm-eval wrote: results by task, and the file that holds everything."""

    tasks: Mapping[str, Mapping[str, Any]]
    path: Path


def arguments(
    endpoint: Endpoint,
    tasks: Sequence[str],
    output: Path,
    *,
    chat: bool = True,
    concurrency: int = 8,
    limit: int | None = None,
    num_fewshot: int | None = None,
    tokenizer: str | None = None,
    seed: int = 1234,
    include: Path | str | None = None,
) -> list[str]:
    """What follows `python -m lm_eval`. Holds no key. Raises ValueError for what lm-eval could not parse back.

    include: a directory with tasks of one's own (YAML files as lm-eval's own are).
    tokenizer: for completions; a model's id or directory. Without one, prompts are sent as text, and the server's
    tokens are found through `echo`.
    """
    if not tasks:
        raise ValueError("There is no task. Name one, for example gsm8k.")
    if concurrency < 1 or (limit is not None and limit < 1):
        raise ValueError("concurrency and limit are whole numbers from 1 on.")
    url = f"{endpoint.api_root}/{'chat/completions' if chat else 'completions'}"
    fields = {
        "model": endpoint.model,
        "base_url": url,
        "num_concurrent": str(concurrency),
        "max_retries": "3",
        "tokenized_requests": "False",
    }
    if tokenizer is not None:
        fields["tokenizer"] = tokenizer
    for name, value in fields.items():
        if "," in value or "=" in value:
            raise ValueError(f"{name} {value!r} holds a comma or an equals sign, which lm-eval takes for its own.")
    for task in tasks:
        if not task.strip() or task.startswith("-") or "," in task:
            raise ValueError(f"{task!r} is no task's name.")
    made = ["--model", "local-chat-completions" if chat else "local-completions"]
    made += ["--model_args", ",".join(f"{name}={value}" for name, value in fields.items())]
    made += ["--tasks", ",".join(tasks), "--output_path", str(output), "--log_samples", "--seed", str(seed)]
    if chat:
        made.append("--apply_chat_template")
    if limit is not None:
        made += ["--limit", str(limit)]
    if include is not None:
        made += ["--include_path", str(Path(include).expanduser().resolve())]
    if num_fewshot is not None:
        made += ["--num_fewshot", str(num_fewshot)]
    return made


def environment(endpoint: Endpoint, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The child's: the endpoint's key and nobody else's. Raises KeyMissing."""
    made = {name: value for name, value in base.items() if name != KEY}
    key = endpoint.read_key()
    made[KEY] = key.get_secret_value() if key is not None else "none"  # an empty one is refused by some of its versions
    return made


def refusal(
    endpoint: Endpoint, kinds: Mapping[str, str], chat: bool, prompt_logprobs: bool | None
) -> BadRequest | None:
    """Why these tasks cannot be run, or None. kinds: the kind of each task.   prompt_logprobs: what the server can."""
    needing = sorted(task for task, kind in kinds.items() if kind in NEED_PROMPT_LOGPROBS)
    if not needing:
        return None
    some = ", ".join(needing[:5]) + ("…" if len(needing) > 5 else "")
    if chat:
        return BadRequest(
            f"{some}: not possible through chat.",
            "These tasks weigh given answers by their probability; a chat API tells probabilities of its output only.",
            "Use completions (chat=False, --completions) with a server that offers them, vLLM for example, or a "
            "generative variant of the task (gsm8k, mmlu_generative).",
        )
    if prompt_logprobs is False:
        return BadRequest(
            f"{some}: “{endpoint.name}” gives no probabilities of a prompt.",
            "POST /v1/completions with echo and logprobs gave none for the prompt's own tokens.",
            "Use a server that has them (vLLM), or a generative variant of the task.",
        )
    return None


def gives_prompt_logprobs(endpoint: Endpoint) -> bool:
    """Whether /v1/completions answers `echo` with the prompt's own probabilities; asks for one token.

    Raises EndpointError where the server cannot be asked at all; one that refuses the request cannot do it.
    """

    async def asked() -> bool:
        answer = await background.shared_client().complete(
            endpoint, "One two three four", max_tokens=1, echo=True, logprobs=1, temperature=0
        )
        return len(answer.logprobs) > 1

    try:
        return background.run(asked())
    except BadRequest:
        return False


def installed(python: str = sys.executable) -> None:
    """Raises ModuleNotFoundError, naming the command, where lm-eval is not installed."""
    if python == sys.executable:
        there = importlib.util.find_spec("lm_eval") is not None
    else:
        probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lm_eval') is None)"
        there = subprocess.run([python, "-c", probe], check=False).returncode == 0
    if not there:
        raise ModuleNotFoundError(
            f"lm-eval is not installed for {python}. Install it with: {python} -m pip install 'lm-eval[api]'"
        )


def task_kinds(tasks: Sequence[str], python: str = sys.executable, include: Path | str | None = None) -> dict[str, str]:
    """The kind of request that each task makes, asked from lm-eval; groups are resolved. Raises LmEvalFailed."""
    own = "" if include is None else str(Path(include).expanduser().resolve())
    found = subprocess.run([python, "-c", _KINDS, own, *tasks], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise LmEvalFailed(f"lm-eval does not know these tasks: {', '.join(tasks)}.\n{_tail(found.stderr)}")
    kinds: dict[str, str] = json.loads(found.stdout.strip().splitlines()[-1])
    return kinds


def run(
    endpoint: Endpoint,
    tasks: Sequence[str],
    output: Path | str,
    *,
    chat: bool = True,
    python: str = sys.executable,
    on_line: Callable[[str], None] | None = None,
    **settings: Any,
) -> Result:
    """Check, run and wait. settings: those of `arguments`. on_line gets what lm-eval says.

    Raises ModuleNotFoundError, BadRequest and other EndpointErrors before anything is asked; LmEvalFailed.
    """
    output = Path(output).expanduser().resolve()
    command = [python, "-m", "lm_eval", *arguments(endpoint, tasks, output, chat=chat, **settings)]
    installed(python)
    kinds = task_kinds(tasks, python, settings.get("include"))
    able = None
    if not chat and NEED_PROMPT_LOGPROBS & set(kinds.values()):
        able = gives_prompt_logprobs(endpoint)
    refused = refusal(endpoint, kinds, chat, able)
    if refused is not None:
        raise refused
    output.mkdir(parents=True, exist_ok=True)
    before = set(output.rglob("results_*.json"))
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(endpoint),
        start_new_session=True,  # it has workers of its own: they are ended together
    )
    lines = _follow(child, endpoint, on_line)
    made = sorted(set(output.rglob("results_*.json")) - before, key=lambda path: path.stat().st_mtime)
    if child.returncode != 0 or not made:
        raise LmEvalFailed(f"lm-eval ended with exit code {child.returncode}.\n{_tail(lines)}")
    return Result(json.loads(made[-1].read_text(encoding="utf-8")).get("results", {}), made[-1])


def _follow(child: subprocess.Popen[str], endpoint: Endpoint, on_line: Callable[[str], None] | None) -> str:
    """Reads what the child says until it ends; keeps the last lines, without the key should one hold it."""
    key = None
    try:
        key = endpoint.read_key()
    except EndpointError:
        pass  # gone since the child began
    kept: list[str] = []
    try:
        assert child.stdout is not None
        for line in child.stdout:
            line = blot(line.rstrip("\n"), key)
            kept = [*kept, line][-40:]
            if on_line is not None:
                on_line(line)
        child.wait()
    finally:
        if child.poll() is None:
            _end(child)
        if child.stdout is not None:
            child.stdout.close()
    return "\n".join(kept)


def _end(child: subprocess.Popen[str]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(_STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-15:])
