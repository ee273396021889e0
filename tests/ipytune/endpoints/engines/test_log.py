"""Logs of engines as progress, and their ends as causes and remedies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints.engines.log import diagnose, last_lines, stage


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:03<00:03,  1.6s/it]", "Loading weights 50 %"),
        (
            "(EngineCore pid=7) INFO default_loader.py:308] Loading weights took 1.25 seconds",
            "Weights loaded in 1.25 s",
        ),
        ("INFO backends.py:644] Dynamo bytecode transform time: 4.03 s", "Compiling"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|####  | 14/35", "Capturing CUDA graphs 40 %"),
        ("INFO kv_cache_utils.py:1087] GPU KV cache size: 431,008 tokens", "Room for 431,008 tokens of cache"),
        ("INFO:     127.0.0.1:1 - GET /health 200", None),
    ],
)
def test_what_the_engine_is_doing(line: str, words: str | None) -> None:
    assert stage(line) == words


@pytest.mark.parametrize(
    ("log", "code", "why", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", 1, "memory was not enough", "smaller"),
        (
            "ValueError: Free memory on device (12.1/79.2 GiB) on startup is less than desired GPU memory utilization",
            1,
            "Only 12.1 of the GPU's 79.2 GiB",
            "gpu-memory-utilization",
        ),
        ("ValueError: No available memory for the cache blocks.", 1, "cache", "--max-model-len"),
        ("OSError: [Errno 98] Address already in use", 1, "port is taken", "port=0"),
        ("Model architectures ['MyForCausalLM'] are not supported for now", 1, "architecture", "newer vLLM"),
        ("model type `brandnew` but Transformers does not recognize this", 1, "architecture", "newer vLLM"),
        (
            "ValueError: LoRA rank 64 is greater than max_lora_rank 16.",
            1,
            "rank is 64, and the server was started for at most 16",
            "max_lora_rank=64",
        ),
        ("vLLM only supports modules_to_save being None.", 1, "whole layers", "ipytune merge"),
        (
            "Total number of attention heads (9) must be divisible by tensor parallel size (2).",
            1,
            "9 attention heads",
            "divides 9",
        ),
        ("api_server.py: error: unrecognized arguments: --nonsense", 2, "option --nonsense", "extra"),
        ("ModuleNotFoundError: No module named 'gguf'", 1, "No module named 'gguf'", "Install"),
        ("", -9, "killed", "more memory"),
        ("", -6, "signal 6", "log"),
        ("", 3, "exit code 3", "log"),
    ],
)
def test_why_an_engine_ended_and_what_to_do(log: str, code: int, why: str, remedy: str) -> None:
    cause = diagnose(log, code)
    assert why in cause.why and remedy in cause.remedy
    assert cause.port_taken == ("port" in why)


@given(st.text(max_size=300), st.none() | st.integers(-64, 255))
def test_every_log_has_some_cause(log: str, code: int | None) -> None:
    cause = diagnose(log, code)
    assert cause.why or code is None


def test_of_a_progress_bar_the_last_state_is_kept() -> None:
    assert last_lines("one\ntwo\r 10%\r 90%\nthree\n", 2) == " 90%\nthree"
