"""An engine's log, read for a person: what it is doing now, and why it ended. Pure: text in, words out.

The patterns are those of vLLM 0.1x to 0.32, transformers 5 and torch; what matches none is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_KEPT = 30  # lines of a log that go into an error


@dataclass(frozen=True)
class Cause:
    """why: what the log says, in a sentence.   remedy: what to do.   port_taken: another port would help."""

    why: str
    remedy: str
    port_taken: bool = False


_Words = Callable[["re.Match[str]"], str]


def _stage(words: str) -> _Words:
    return lambda match: words.format(*match.groups())


_STAGES: tuple[tuple[re.Pattern[str], _Words], ...] = tuple(
    (re.compile(pattern), _stage(words))
    for pattern, words in (
        (r"[Ll]oading .*shards.*?(\d+)%", "Loading weights {} %"),
        (r"Starting to load model", "Loading weights"),
        (r"Loading weights took ([\d.]+)", "Weights loaded in {} s"),
        (r"Dynamo bytecode transform|Compiling a graph|torch\.compile takes", "Compiling"),
        (r"[Cc]aptur\w+ CUDA graphs?.*?(\d+)%", "Capturing CUDA graphs {} %"),
        (r"GPU KV cache size: ([\d,]+)", "Room for {} tokens of cache"),
        (r"CPU KV cache size: ([\d,]+)", "Room for {} tokens of cache"),
        (r"Warming up model", "Warming up"),
        (r"Starting vLLM (?:API )?server", "Opening its port"),
    )
)


def stage(line: str) -> str | None:
    """What a line of the log says that the engine is doing; None for the many that say nothing to a user.

    >>> stage("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:03<00:03]")
    'Loading weights 50 %'
    """
    for pattern, words in _STAGES:
        if match := pattern.search(line):
            return words(match)
    return None


_LESS_MEMORY = (
    "Use more GPUs, a smaller or quantised model, or a shorter context, for example extra=['--max-model-len', '8192']."
)
_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"Free memory on device[^\n]*?\(([\d.]+)/([\d.]+) GiB\)",
        "Only {0} of the GPU's {1} GiB are free: another process holds the rest.",
        "Stop what else uses the GPU (a kernel with a model loaded, another server), or ask for less: "
        "extra=['--gpu-memory-utilization', '0.4'].",
    ),
    (
        r"(?:No available memory for the cache blocks|larger than the (?:available KV cache memory|maximum number of "
        r"tokens))",
        "The weights fit, and leave too little memory for the cache of a single long request.",
        _LESS_MEMORY,
    ),
    (
        r"(?:CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|DefaultCPUAllocator: can't allocate)",
        "The memory was not enough for the model.",
        _LESS_MEMORY,
    ),
    (
        r"rank (\d+) is greater than max_lora_rank (\d+)",
        "The adapter's rank is {0}, and the server was started for at most {1}.",
        "Start it with max_lora_rank={0} (--max-lora-rank of vLLM; its default is 16), or train with a lower rank.",
    ),
    (
        r"modules_to_save (?:being None|[^\n]*support)",
        "The adapter holds whole layers (modules_to_save), which vLLM does not take.",
        "Merge it (ipytune merge) and serve the merged model, or use engine='transformers'.",
    ),
    (
        r"(?:does not support LoRA|LoRA is not supported)",
        "vLLM serves no adapters of this kind of model.",
        "Start it without (max_lora_rank=0), and merge the adapter into the model that is served (ipytune merge).",
    ),
    (
        r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        "The model has {0} attention heads, which cannot be spread over {1} GPUs.",
        "Ask for a number of GPUs that divides {0}.",
    ),
    (
        r"(?:Model architectures? \[?'?([\w', ]+?)'?\]? (?:are|is) not supported|"
        r"model type `?'?([\w.-]+)`?'? but Transformers does not recognize|"
        r"has no vLLM implementation)",
        "The engine does not know this model's architecture.",
        "Install a newer vLLM or transformers, or try the other engine: engine='transformers' or engine='vllm'.",
    ),
    (
        r"(?:max_model_len \((\d+)\) is greater than the derived max_model_len)",
        "The context of {0} tokens is longer than the model's own.",
        "Ask for a shorter --max-model-len.",
    ),
    (
        r"Bfloat16 is only supported on GPUs with compute capability",
        "This GPU does not compute in bfloat16, the type of the weights.",
        "Start it with extra=['--dtype', 'half'].",
    ),
    (
        r"unrecognized arguments: ([^\n]+)",
        "The engine does not know the option {0}.",
        "Look for its name in this version (vllm serve --help=all), and change `extra`.",
    ),
    (
        r"error: argument ([^\n]+)",
        "The engine refuses an option: {0}.",
        "Change `extra`.",
    ),
    (
        r"No space left on device",
        "A disk is full.",
        "Make room in the home directory's cache and in the temporary directory; set TMPDIR to one that has room.",
    ),
    (
        r"(?:libcud\w*\.so[^\n]*cannot open shared object|CUDA driver version is insufficient|"
        r"Found no NVIDIA driver)",
        "The CUDA libraries do not fit the driver, or there is no GPU in this session.",
        "Start a session with a GPU, or use an environment whose CUDA version the node's driver supports.",
    ),
    (
        r"(?:SafetensorError|Error while deserializing header|incomplete metadata|file not fully covered)",
        "A file of weights is damaged or incomplete.",
        "Fetch the model again, or copy it again from where it is whole.",
    ),
    (
        r"(?:ModuleNotFoundError|ImportError): ([^\n]+)",
        "Its environment lacks something: {0}.",
        "Install it in the environment of the engine.",
    ),
)
_PORT = re.compile(r"[Aa]ddress already in use|EADDRINUSE|Errno 98")


def diagnose(log: str, code: int | None) -> Cause:
    """Why an engine ended. log: its last lines.   code: its exit code, negative for a signal, None while it runs."""
    if _PORT.search(log):
        return Cause(
            "Its port is taken by another program.", "Choose another, or port=0 for a free one.", port_taken=True
        )
    for pattern, why, remedy in _CAUSES:
        if match := re.search(pattern, log):
            groups = [group if group is not None else "" for group in match.groups()]
            return Cause(why.format(*groups), remedy.format(*groups))
    if code == -9:
        return Cause(
            "It was killed, which is what happens to a process when the memory of the session is used up.",
            "Ask for a session with more memory, or serve a smaller model.",
        )
    if code is not None and code < 0:
        return Cause(f"It was ended by signal {-code}.", "The end of its log says more.")
    if code is not None:
        return Cause(f"It ended with exit code {code}.", "The end of its log says why.")
    return Cause("", "")


def last_lines(text: str, lines: int = _KEPT) -> str:
    """The end of a log. Progress bars rewrite their line: the last state of each is kept."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")[-lines:])
