"""An adapter given to a vLLM server that runs already, beside its base and without a restart; and taken from it again.

    tuned = load(base_endpoint, "runs/first", name="headers")   # an Endpoint, ready for chat and compare
    unload(tuned)

The server must allow it (VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, --enable-lora, --max-lora-rank) and must see the adapter's
directory: it reads the files itself. What a server would refuse, or would take and answer wrongly with, is looked for
before it is asked. Source of requests and refusals: vLLM's routes /v1/load_lora_adapter and /v1/unload_lora_adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
from pydantic import SecretStr

from ipytune.adapter.source import Adapter, open_adapter
from ipytune.endpoints.errors import (
    BadRequest,
    EndpointError,
    ModelNotFound,
    ServerFailed,
    TimedOut,
    Unauthorized,
)
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.refusals import error_for, server_words
from ipytune.endpoints.unreachable import DIRECT, no_connection, trusted
from ipytune.runs import Run

LOAD_SECONDS = 120.0  # from a busy network file system to every GPU of the server
# The values that vLLM's --max-lora-rank takes; 16 is its default.
SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class LoadingNotAllowed(EndpointError):
    """The server has no such route, or serves no LoRA: it was started without the permission."""


class RankTooHigh(EndpointError):
    """The adapter's rank is over the server's --max-lora-rank."""


class NameTaken(EndpointError):
    """The server has a model of that name already."""


class WrongBase(EndpointError):
    """The adapter belongs to another model than the one that the server runs."""


class AdapterNotSeen(EndpointError):
    """The server does not find the adapter's files: it reads them itself, perhaps on another machine."""


def load(
    endpoint: Endpoint,
    source: Run | Path | str,
    name: str | None = None,
    *,
    server_path: str | None = None,
    replace: bool = False,
    any_base: bool = False,
    key: SecretStr | None = None,
) -> Endpoint:
    """Loads the adapter of a run (or of a directory) into the server behind `endpoint`, whose model is the base.

    name: of the tuned model there; by default the run's.   server_path: the adapter's directory as the server sees it,
    where that differs from here.   replace: exchange an adapter of that name.   any_base: do not compare the base's
    name with the adapter's (one model has many names; but a wrong base answers without an error, and wrongly).
    Returns the endpoint of the tuned model. Raises the errors above, or another EndpointError; AdapterError when there
    is no adapter.
    """
    adapter = open_adapter(source)
    name = name or default_name(adapter)
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r:.100} is no name for a model on a server.",
            "",
            "Use letters, digits, '.', '_' and '-', at most 96.",
        )
    if adapter.settings.get("use_dora"):
        raise BadRequest("vLLM serves no DoRA adapters.", "", "Merge it (ipytune merge) and serve the merged model.")
    key = key or endpoint.read_key()
    served = _models(endpoint, key)
    check(endpoint, adapter, name, served, replace=replace, any_base=any_base)
    body = {"lora_name": name, "lora_path": server_path or str(adapter.path.resolve()), "load_inplace": replace}
    if not replace:
        del body["load_inplace"]  # newer than the route itself
    status, words = _post(endpoint, "load_lora_adapter", body, key)
    if status != 200:
        raise refusal(endpoint, status, words, name=name, rank=adapter.rank, path=str(body["lora_path"]))
    return endpoint.model_copy(update={"name": name, "model": name})


def unload(endpoint: Endpoint, key: SecretStr | None = None) -> None:
    """Takes the adapter `endpoint.model` from its server. Raises ModelNotFound when it has none of that name."""
    key = key or endpoint.read_key()
    status, words = _post(endpoint, "unload_lora_adapter", {"lora_name": endpoint.model}, key)
    if status != 200:
        raise refusal(endpoint, status, words, name=endpoint.model)


def default_name(adapter: Adapter) -> str:
    """The run's directory, else the adapter's, made a valid name."""
    folder = adapter.run.path if adapter.run is not None else adapter.path.resolve()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:96] or "tuned"


def served_rank(rank: int) -> int:
    """The least --max-lora-rank that serves an adapter of this rank; ranks over the greatest are left as they are."""
    return next((allowed for allowed in SERVED_RANKS if allowed >= rank), rank)


def check(
    endpoint: Endpoint,
    adapter: Adapter,
    name: str,
    served: list[Mapping[str, Any]],
    *,
    replace: bool = False,
    any_base: bool = False,
) -> None:
    """Raises what speaks against loading. served: the entries of the server's /v1/models."""
    listed = {str(entry.get("id")): entry for entry in served}
    base = listed.get(endpoint.model)
    if base is None:
        raise ModelNotFound(
            f"“{endpoint.name}” ({endpoint.base_url}) does not serve the model “{endpoint.model}”.",
            f"It lists: {', '.join(listed) or 'none'}.",
            "Give the endpoint of the base model, by one of the listed names.",
            available=tuple(listed),
        )
    if base.get("parent"):
        raise WrongBase(
            f"“{endpoint.model}” is an adapter itself, of {base['parent']}.",
            "Adapters are loaded beside a base.",
            f"Give an endpoint whose model is {base['parent']}.",
        )
    if name in listed and not (replace and listed[name].get("parent")):
        raise NameTaken(
            f"The server has a model “{name}” already.",
            "It is a base model." if not listed[name].get("parent") else "",
            "Choose another name." if not listed[name].get("parent") else "Choose another name, or replace=True.",
        )
    names = {plain_name(str(text)) for text in (base.get("id"), base.get("root")) if text}
    if not any_base and plain_name(adapter.base) not in names and base_of(adapter) not in names:
        raise WrongBase(
            f"The adapter belongs to {adapter.base}, and the server runs {base.get('root') or endpoint.model}.",
            "On another base it would answer without an error, and wrongly.",
            "Give the endpoint of its own base; if the two are the same model under two names, any_base=True.",
        )


def plain_name(model: str) -> str:
    """The name of a model without whose it is or where it lies: the last part of an id or a path, in lower case.

    >>> plain_name("Qwen/Qwen3-0.6B"), plain_name("/hub/models--Qwen--Qwen3-0.6B/snapshots/0a1b")
    ('qwen3-0.6b', 'qwen3-0.6b')
    """
    for part in PurePosixPath(model).parts:
        if part.startswith("models--"):
            return part.split("--")[-1].lower()
    return PurePosixPath(model).name.lower()


def base_of(adapter: Adapter) -> str:
    """As the adapter's own file names it, which may be the directory where a run's named model was found."""
    return plain_name(str(adapter.settings.get("base_model_name_or_path") or adapter.base))


def refusal(
    endpoint: Endpoint, status: int, words: str, *, name: str, rank: int | None = None, path: str = ""
) -> EndpointError:
    """The error for what vLLM answered. words: its message, on one line."""
    said = f"The server said: {words}" if words else ""
    if found := re.search(r"rank (\d+) is greater than max_lora_rank (\d+)", words):
        least = served_rank(rank or int(found[1]))
        return RankTooHigh(
            f"The adapter's rank is {found[1]}, and the server takes at most {found[2]}.",
            said,
            f"Start the server with --max-lora-rank {least}, or train with a lower rank.",
        )
    if "No adapter found" in words:
        return AdapterNotSeen(
            f"The server does not see {path}.",
            said,
            "Put the adapter where the server can read it, and give that place as server_path.",
        )
    if "already been loaded" in words:
        return NameTaken(f"The server has an adapter “{name}” already.", said, "Choose another name, or replace=True.")
    if "cannot be found" in words:
        return ModelNotFound(f"The server has no adapter “{name}”.", said, "Look at what it lists under /v1/models.")
    if "expected target modules" in words or "size mismatch" in words or "shape" in words.lower():
        return WrongBase(
            "The adapter does not fit the server's model.",
            said,
            "Give the endpoint of the model that it was trained on.",
        )
    if "LoRA is not enabled" in words:
        return LoadingNotAllowed(
            "The server serves no LoRA adapters.",
            said,
            f"Start it with --enable-lora --max-lora-rank {served_rank(rank or 16)}.",
        )
    if status in (404, 405):
        return LoadingNotAllowed(
            f"“{endpoint.name}” ({endpoint.base_url}) does not let adapters be loaded while it runs.",
            said,
            "Start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora, or give it the "
            "adapter at the start with --lora-modules.",
        )
    return error_for(endpoint, status, words, has_key=endpoint.key_env is not None or endpoint.key_file is not None)


def _models(endpoint: Endpoint, key: SecretStr | None) -> list[Mapping[str, Any]]:
    response = _ask(endpoint, "GET", "models", None, key)
    if response.status_code != 200:
        raise error_for(endpoint, response.status_code, _words(response, key), has_key=key is not None)
    try:
        entries = response.json()["data"]
        return [entry for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError):
        raise ServerFailed(
            f"“{endpoint.name}” does not say which models it serves.",
            f"{endpoint.api_root}/models answered with something else.",
            "Check that the URL is that of a vLLM server.",
        ) from None


def _post(endpoint: Endpoint, route: str, body: Mapping[str, Any], key: SecretStr | None) -> tuple[int, str]:
    response = _ask(endpoint, "POST", route, body, key)
    if response.status_code in (401, 403):
        raise Unauthorized(
            f"“{endpoint.name}” ({endpoint.base_url}) does not let you change its adapters: {response.status_code}.",
            f"The server said: {_words(response, key)}",
            "Give the key of someone who may, or ask who runs the server.",
        )
    return response.status_code, "" if response.status_code == 200 else _words(response, key)


def _ask(
    endpoint: Endpoint, method: str, route: str, body: Mapping[str, Any] | None, key: SecretStr | None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
    timeout = httpx.Timeout(LOAD_SECONDS, connect=10.0)
    try:
        # follows no redirect: a key is not sent on to another address
        with httpx.Client(timeout=timeout, verify=trusted(), mounts=DIRECT) as http:
            return http.request(method, f"{endpoint.api_root}/{route}", json=body, headers=headers)
    except httpx.TimeoutException:
        raise TimedOut(
            f"“{endpoint.name}” ({endpoint.base_url}) did not answer within {LOAD_SECONDS:g} s.",
            "It may still be loading.",
            "Look whether the adapter is among the server's models before you try again.",
        ) from None
    except httpx.HTTPError as error:
        raise no_connection(endpoint, error, key) from None


def _words(response: httpx.Response, key: SecretStr | None) -> str:
    return server_words(response.content, response.headers.get("content-type", ""), key)
