"""The word by which an endpoint is named on a command line: a name of the catalogue, or a URL.

    --endpoint site
    --endpoint http://127.0.0.1:8000/v1 [--model NAME] [--key-env NAME | --key-file PATH]

Every command reads it here, so all say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ipytune.endpoints import background
from ipytune.endpoints.catalogue import Catalogue
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.records import Endpoint, described

_LISTED = 12
_HOST = re.compile(r"(localhost|[\w.-]+\.[\w-]+|[\w-]+)(:\d+)(/.*)?|(localhost|[\w.-]+\.[\w-]+)/.*")
# What keys of well-known services begin with.
_KEY = re.compile(r"(sk-|hf_|nvapi-|gsk_|xai-|glpat-|ghp_|Bearer\s)\S{6,}")


def looks_like_key(word: str) -> bool:
    return _KEY.match(word.strip()) is not None


def from_words(
    word: str, *, model: str | None = None, key_env: str | None = None, key_file: Path | str | None = None
) -> Endpoint:
    """The endpoint that `word` names. For a URL without a model the server is asked: it must list exactly one.

    model, key_env, key_file: for a URL; an endpoint of the catalogue has its own. Raises EndpointError.
    """
    if looks_like_key(word):
        raise BadRequest(
            "What was given as an endpoint looks like a key.",
            "A key on a command line is kept in the shell's history and seen in the list of processes.",
            "Exchange it for a new one, put that into a variable or file, and name it with --key-env or --key-file.",
        )
    if "://" in word:
        endpoint = described(name=model or "?", base_url=word, model=model or "?", key_env=key_env, key_file=key_file)
        return endpoint if model else _with_the_only_model(endpoint)
    catalogue = Catalogue.load()
    if word not in catalogue.names and _HOST.fullmatch(word):
        raise BadRequest(f"“{word}” is no endpoint's name.", "It looks like an address.", f"Write http://{word}")
    endpoint = catalogue.get(word)
    options = {"--model": model, "--key-env": key_env, "--key-file": key_file}
    for option, value in options.items():
        if value is not None:
            raise BadRequest(
                f"{option} is for an endpoint that is given by its URL.",
                f"“{word}” is in the catalogue, with the model “{endpoint.model}”.",
                f"Leave {option} out, or write the URL: {endpoint.base_url}.",
            )
    return endpoint


def several(
    words: Sequence[str],
    *,
    model: str | None = None,
    key_env: str | None = None,
    key_file: Path | str | None = None,
) -> list[Endpoint]:
    """As `from_words`, for several of which `model` and the key belong to the URLs among them; all get different names.

    None named: the catalogue's only endpoint. Raises EndpointError.
    """
    if not words:
        return [only()]
    no_url = not any("://" in word for word in words)  # then they belong to nothing, which from_words tells
    found = [
        from_words(word, model=model, key_env=key_env, key_file=key_file)
        if no_url or "://" in word
        else from_words(word)
        for word in words
    ]
    return _told_apart(found)


def only() -> Endpoint:
    """The catalogue's endpoint when there is exactly one. Raises BadRequest naming them when there are others."""
    catalogue = Catalogue.load()
    if len(catalogue.entries) == 1:
        return catalogue.entries[0].endpoint
    names = ", ".join(catalogue.names[:_LISTED])
    raise BadRequest(
        "Which endpoint?",
        f"There is: {names}." if names else " ".join(["There is none in the catalogue.", *catalogue.problems]),
        "Name it with --endpoint, by its name or URL.",
    )


def _with_the_only_model(endpoint: Endpoint) -> Endpoint:
    asked = endpoint.model_copy(update={"name": urlsplit(endpoint.base_url).hostname or "?"})
    models = background.models(asked)
    if len(models) == 1:
        return endpoint.model_copy(update={"name": models[0], "model": models[0]})
    if not models:
        raise BadRequest(
            f"{endpoint.base_url} lists no model.", "It may still be loading one.", "Wait, or name one with --model."
        )
    more = "…" if len(models) > _LISTED else ""
    raise BadRequest(
        f"Which model of {endpoint.base_url}?",
        f"It lists: {', '.join(models[:_LISTED])}{more}.",
        "Name one with --model.",
    )


def _told_apart(endpoints: list[Endpoint]) -> list[Endpoint]:
    """With where they are behind names that several have, and a number behind those that are still the same."""
    names = [endpoint.name for endpoint in endpoints]
    longer = [
        f"{endpoint.name} at {urlsplit(endpoint.base_url).netloc}" if names.count(endpoint.name) > 1 else endpoint.name
        for endpoint in endpoints
    ]
    numbered = [
        f"{name} ({longer[: at + 1].count(name)})" if longer.count(name) > 1 else name for at, name in enumerate(longer)
    ]
    return [endpoint.model_copy(update={"name": name}) for endpoint, name in zip(endpoints, numbered, strict=True)]
