"""`python -m ipytune.endpoints.server_process DIRECTORY HOST PORT`: transformers' server, as a child that behaves.

What it adds to `transformers serve`:
- every request but /health must carry the key in DIRECTORY/key;
- it binds its port itself and writes it to DIRECTORY/port, so a free port (0) is found without a race;
- a temperature above 0 draws, also for models whose own settings do not say so;
- adapters are added and taken away while it runs, by the routes that vLLM has for it, and it lists exactly what it
  serves, each adapter with its base: what speaks to the one engine speaks to the other.

DIRECTORY/base.json names the base: {"name": as requests call it, "path": its directory}. Ended by its keeper.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from transformers.cli.serve import Serve
from transformers.cli.serving.utils import BaseHandler

from ipytune.endpoints.engines.inside.ipytune_require_key import App, RequireKey
from ipytune.endpoints.layout import Served, add, remove, served_name
from ipytune.lora.hardware import choose_device, choose_dtype


class Models:
    """The models of this server: the base, and the adapters that come and go. `manager` is transformers' own."""

    def __init__(self, cache: Path, base: Served, manager: Any) -> None:
        self._cache = cache
        self._base = base
        self._manager = manager
        self._adapters: dict[str, Served] = {}
        self._one_at_a_time = asyncio.Lock()

    async def listed(self, _: Request) -> Response:
        base = self._base
        cards = [_card(base.name, base.base, None)]
        cards += [_card(name, cast(Path, item.adapter), base.name) for name, item in self._adapters.items()]
        return JSONResponse({"object": "list", "data": cards})

    async def load(self, request: Request) -> Response:
        body = await _json(request)
        name, path = body.get("lora_name"), body.get("lora_path")
        if not isinstance(name, str) or not name or not isinstance(path, str):
            return _refused(400, "lora_name and lora_path are wanted.")
        if served_name(name) != name:
            return _refused(400, f"“{name}” is no name for a model here; “{served_name(name)}” would be one.")
        async with self._one_at_a_time:
            if name == self._base.name or (name in self._adapters and not body.get("load_inplace")):
                return _refused(400, f"A model “{name}” has already been loaded.")
            if not (Path(path) / "adapter_config.json").is_file():
                return _refused(404, f"No adapter found in {path}")
            if name in self._adapters:
                await asyncio.to_thread(self._forget, name)
            served = Served(name, self._base.base, Path(path))
            add(self._cache, served)
            try:
                # Now, so that an adapter that does not fit is refused here, and the first answer is a quick one.
                await asyncio.to_thread(self._manager.load_model_and_processor, _key(name))
            except Exception as error:  # whatever a damaged or foreign adapter makes the libraries raise
                remove(self._cache, name)
                return _refused(400, f"The adapter cannot be loaded: {error}")
            self._adapters[name] = served
        return PlainTextResponse(f"“{name}” is served.")

    async def unload(self, request: Request) -> Response:
        name = (await _json(request)).get("lora_name")
        async with self._one_at_a_time:
            if name not in self._adapters:
                return _refused(404, f"The adapter “{name}” cannot be found.")
            await asyncio.to_thread(self._forget, name)
        return PlainTextResponse(f"“{name}” is served no more.")

    def _forget(self, name: str) -> None:
        """Gone from the list, the cache and the memory; an answer that is being written keeps the model to its end."""
        del self._adapters[name]
        remove(self._cache, name)
        loaded = self._manager.loaded_models.get(_key(name))
        if loaded is not None:
            loaded.delete_model()


def _draws_when_asked(build: Any) -> Any:
    """transformers 5.23 takes a temperature from a request, and ignores it unless the model's settings say
    `do_sample`, which those of many small models do not."""

    @functools.wraps(build)
    def built(self: Any, body: dict[str, Any], *settings: Any, **named: Any) -> Any:
        made = build(self, body, *settings, **named)
        if body.get("temperature"):
            made.do_sample = True
        return made

    return built


class ChildServe(Serve):
    """transformers' server with our socket, key and routes; runs in the foreground until it is told to end."""

    def __init__(self, bound: socket.socket, directory: Path, **settings: Any) -> None:
        BaseHandler._build_generation_config = _draws_when_asked(BaseHandler._build_generation_config)  # type: ignore[method-assign]
        self._bound = bound
        self._directory = directory
        # The base class either serves at once, or hands over to start_server(), which is where we come in.
        super().__init__(non_blocking=True, **settings)

    def start_server(self) -> None:
        named = json.loads((self._directory / "base.json").read_text(encoding="utf-8"))
        base = Served(named["name"], Path(named["path"]))
        models = Models(self._directory / "models", base, self._model_manager)
        routes = [
            Route("/v1/models", models.listed, methods=["GET"]),
            Route("/v1/load_lora_adapter", models.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", models.unload, methods=["POST"]),
            Mount("", cast(Any, self.server.config.app)),
        ]
        key = (self._directory / "key").read_text(encoding="ascii")
        self.server.config.app = cast(Any, RequireKey(cast(App, Starlette(routes=routes)), key))
        self.server.run(sockets=[self._bound])


def main(directory: Path, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    beside = directory / "port.new"
    beside.write_text(str(bound.getsockname()[1]), encoding="ascii")
    beside.rename(directory / "port")
    # Idle models stay: a second prompt after a coffee must not wait for the model again.
    # The weights' own type is slow where the processor does not compute in it (bfloat16 on most CPUs).
    dtype = str(choose_dtype("auto", choose_device("auto"))).removeprefix("torch.")
    ChildServe(bound, directory, model_timeout=-1, dtype=dtype)
    os._exit(0)  # a generation still running in a thread must not hold the process


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _key(name: str) -> str:
    """As transformers' manager calls a loaded model."""
    return f"{name}@main"


def _card(name: str, root: Path, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "", "root": str(root), "parent": parent}


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status_code=status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
