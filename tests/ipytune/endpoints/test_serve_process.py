"""A real server with a tiny model on transformers: it answers, wants its key, lists its models, takes adapters while it
runs, and never outlives its parent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ipytune.adapter.load import NameTaken, WrongBase
from ipytune.endpoints import BadRequest, EndpointError, ModelNotFound, Unauthorized, chat, models
from ipytune.endpoints.catalogue import Catalogue
from ipytune.endpoints.serve import ServeFailed, Server, load_adapter, serve, unload_adapter
from tests.browser.lab import until
from tests.browser.tiny_model import write_tiny_model
from tests.ipytune.endpoints.engines.test_keeper import exists


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapter(tiny: Path) -> Path:
    return write_adapter(tiny, tiny.parent / "first")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        patch.delenv("JPY_PARENT_PID", raising=False)
        yield


@pytest.fixture(scope="module")
def server(tiny: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory, catalogue: None) -> Iterator[Server]:
    # Where the run's own folder lies in the working directory: it must not be taken for the model of that name.
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        running = serve(tiny, adapter, engine="transformers", progress=None)
    with running:
        yield running
    assert not running.running and not running._directory.exists()


def write_adapter(base: Path, directory: Path, seed: int = 1, r: int = 4, std: float = 0.5, **settings: Any) -> Path:
    """An adapter of `base` that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=r, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    peft: Any = get_peft_model(model, config)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    peft.save_pretrained(str(directory))
    return directory


def answer(endpoint: Any) -> str:
    return chat(endpoint, "one nodes two", max_tokens=12, temperature=0).text


def test_a_temperature_draws_though_the_model_s_settings_do_not_say_so(server: Server) -> None:
    drawn = {chat(server.base, "one nodes two", max_tokens=12, temperature=1.5, seed=seed).text for seed in range(4)}
    assert len(drawn) > 1
    assert answer(server.base) == answer(server.base)


def test_it_answers_with_the_servers_own_token_count(server: Server) -> None:
    given = chat(server.base, "one nodes two", max_tokens=5, temperature=0)
    assert given.metrics.output_tokens <= 5 and not given.metrics.estimated


def test_base_and_adapter_answer_differently(server: Server) -> None:
    assert (server.base.name, server.tuned.name, server.tuned.model) == ("base", "tuned", "first")
    assert answer(server.base) != answer(server.tuned)


def test_it_lists_the_models_by_their_short_names_and_refuses_others(server: Server) -> None:
    assert models(server.base) == ("tiny", "first") and {"tiny", "first"} <= set(Catalogue.load().names)
    with pytest.raises(ModelNotFound, match="tiny"):
        chat(server.base.model_copy(update={"model": "other"}), "one")


def test_adapters_come_and_go_while_it_runs(server: Server, tiny: Path) -> None:
    second = write_adapter(tiny, tiny.parent / "second", seed=2)
    loaded = server.load_adapter(second)
    first = answer(loaded)
    assert models(server.base) == ("tiny", "first", "second") and first != answer(server.base)
    with pytest.raises(NameTaken):
        server.load_adapter(second)
    write_adapter(tiny, tiny.parent / "second", seed=3)
    assert answer(server.load_adapter(second, replace=True)) != first
    server.unload_adapter("second")
    assert models(server.base) == ("tiny", "first") and "second" not in Catalogue.load().names
    with pytest.raises(EndpointError):
        chat(loaded, "one")
    with pytest.raises(ModelNotFound, match="second"):
        server.unload_adapter("second")


def test_from_another_process_the_same_is_done_by_the_endpoint(server: Server, tiny: Path) -> None:
    third = write_adapter(tiny, tiny.parent / "third")
    loaded = load_adapter(Catalogue.load().get("tiny"), third)
    assert answer(loaded) == answer(server.tuned)  # the same weights under another name
    unload_adapter(loaded)
    assert models(server.base) == ("tiny", "first")


def test_an_adapter_that_does_not_fit_is_refused_and_leaves_nothing(server: Server, tiny: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    settings = json.loads((tiny.parent / "first" / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "org/other"}))
    (foreign / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WrongBase, match="other"):
        server.load_adapter(foreign)
    with pytest.raises(BadRequest):
        server.load_adapter(foreign, any_base=True)
    with pytest.raises(BadRequest, match="a-b"):
        server.load_adapter(tiny.parent / "first", "a--b")
    assert models(server.base) == ("tiny", "first")


def test_it_wants_its_key_for_all_but_its_health(server: Server) -> None:
    with pytest.raises(Unauthorized):
        chat(server.base.model_copy(update={"key_file": None}), "one")
    root = server.base.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health", trust_env=False).status_code == 200
    for path in ("load_model", "v1/load_lora_adapter", "v1/unload_lora_adapter", "v1/completions", "reset"):
        assert httpx.post(f"{root}/{path}", json={"model": "x"}, trust_env=False).status_code == 401
    key_file = server.base.key_file
    assert key_file is not None and key_file.stat().st_mode & 0o077 == 0


def test_outside_of_jupyter_it_cannot_be_named_from_elsewhere(server: Server) -> None:
    assert server.proxy_url is None
    with pytest.raises(ValueError, match="jupyter-server-proxy"):
        server.shared()


def test_a_model_that_cannot_be_loaded_is_told_with_the_log(tiny: Path, tmp_path: Path, catalogue: None) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(ServeFailed, match="could not load broken"):
        serve(broken, engine="transformers", progress=None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_of_the_command_ends_with_it(tiny: Path, number: signal.Signals, catalogue: None) -> None:
    code = "from ipytune.endpoints.serve_command import app; app()"
    command = [sys.executable, "-c", code, "serve", str(tiny), "--engine", "transformers"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        record = json.loads(parent.stdout.readline())
        assert record["model"] == "tiny"
        keeper = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0])
        engine = int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])
        parent.send_signal(number)
        parent.wait(60)
    until(lambda: not exists(keeper) and not exists(engine), "the end of the server", 60)
    assert not Path(record["key_file"]).parent.exists()
