"""The commands and environments of the engines, as literal as they are started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ipytune.endpoints.engines import transformers, vllm
from ipytune.endpoints.engines.facts import Gpu, Vllm

GIB = 1024**3
HERE = Vllm(("/env/bin/python", "-m", "vllm.entrypoints.openai.api_server"))
SCRIPT = Vllm(("/other/bin/vllm", "serve"), takes_model_as_option=False, ours=False)


def test_vllm_on_two_gpus() -> None:
    plan = vllm.plan(
        HERE, Path("/models/m"), "m", host="127.0.0.1", port=8000, gpus=[Gpu("2"), Gpu("3")], extra=["--dtype", "half"]
    )
    assert plan.command == (
        *HERE.command,
        *("--model", "/models/m", "--served-model-name", "m", "--host", "127.0.0.1", "--port", "8000"),
        *("--middleware", "ipytune_require_key.RequireKey"),
        *("--enable-lora", "--max-lora-rank", "32", "--max-loras", "4"),
        *("--tensor-parallel-size", "2", "--dtype", "half"),
    )
    assert plan.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert plan.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert plan.key_variable == "VLLM_API_KEY" and plan.without == ()


def test_vllm_of_another_environment_on_the_cpu() -> None:
    environ = {"PATH": "/bin", "PYTHONPATH": "/ours"}
    plan = vllm.plan(
        SCRIPT, Path("/models/m"), "m", host="::1", port=1, max_lora_rank=0, memory=9 * GIB, environ=environ
    )
    assert plan.command[:3] == ("/other/bin/vllm", "serve", "/models/m") and "--enforce-eager" in plan.command
    assert "--enable-lora" not in plan.command and plan.max_lora_rank == 0
    assert plan.environment["PATH"] == "/other/bin:/bin" and "/ours" not in plan.environment["PYTHONPATH"]
    assert plan.environment["VLLM_CPU_KVCACHE_SPACE"] == "2" and plan.environment["CUDA_VISIBLE_DEVICES"] == ""


def test_the_users_size_of_the_cache_on_the_cpu_is_kept() -> None:
    added = vllm.environment(HERE, [], 64 * GIB, {"VLLM_CPU_KVCACHE_SPACE": "40"})
    assert "VLLM_CPU_KVCACHE_SPACE" not in added
    assert vllm.environment(HERE, [], 640 * GIB, {})["VLLM_CPU_KVCACHE_SPACE"] == "4"


def test_the_module_that_wants_the_key_is_found_where_there_is_no_ipytune() -> None:
    path = vllm.environment(HERE, [], None, {"PYTHONPATH": "/ours"})["PYTHONPATH"]
    folder, ours = path.split(":")
    assert (Path(folder) / "ipytune_require_key.py").is_file() and ours == "/ours"
    code = "import sys, ipytune_require_key; assert 'ipytune' not in sys.modules; ipytune_require_key.RequireKey"
    subprocess.run([sys.executable, "-S", "-c", code], env={"PYTHONPATH": folder}, check=True)


def test_a_shared_gpu_is_asked_for_less() -> None:
    gpu = Gpu("0", 80 * GIB, 40 * GIB)
    command = vllm.plan(HERE, Path("/m"), "m", host="h", port=1, gpus=[gpu]).command
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.47"


@pytest.mark.parametrize(("rank", "limit"), [(0, 0), (1, 8), (16, 16), (17, 32), (48, 64), (129, 256), (600, 512)])
def test_the_rank_is_one_of_those_that_vllm_takes(rank: int, limit: int) -> None:
    assert vllm.rank_limit(rank) == limit


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 64, "modules_to_save": None}, None),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "modules_to_save: lm_head"),
        ({"r": 8, "use_dora": True}, "DoRA"),
        ({"r": 1024}, "up to rank 512"),
    ],
)
def test_what_vllm_does_not_take(settings: dict[str, object], words: str | None) -> None:
    refused = vllm.refuses(settings)
    assert refused is None if words is None else words in str(refused)


def test_transformers_sees_only_its_models_and_gpus() -> None:
    plan = transformers.plan(Path("/tmp/s"), host="127.0.0.1", port=0, gpus=[Gpu("1")])
    assert plan.command[1:] == ("-m", "ipytune.endpoints.server_process", "/tmp/s", "127.0.0.1", "0")
    assert plan.environment["HF_HUB_CACHE"] == "/tmp/s/models" and plan.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert plan.port is None and plan.key_variable is None and plan.max_lora_rank is None
