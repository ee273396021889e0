"""The site's model endpoints: what the site file says of them, and how the allowed ones reach a session.

A session gets them as JSON in IPYTUNE_ENDPOINTS, with the name of the variable or file that holds the key. The key
itself is nowhere in the hub: not in the site file, not in its database, and it puts none into a job or a pod.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

VARIABLE = "IPYTUNE_ENDPOINTS"

_KEY_FIELDS = frozenset({"key", "api_key", "apikey", "token", "secret", "password", "bearer", "authorization"})
_REMEDY = (
    "put the key into a file or variable of the session and name that in key_file or key_env; "
    "exchange one that stood in this file for a new one"
)
# No character that a shell, Kubernetes' $(NAME) or a template could take for its own.
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?(/[A-Za-z0-9._~%+-]+)*/?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,199}")
_VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_FILE = re.compile(r"(/|~/)[A-Za-z0-9._/+@-]+")


class SiteEndpoint(BaseModel):
    """One model behind one OpenAI-compatible URL, for the users of some groups or for everyone."""

    # what was typed may be a key: it goes into no message
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9.-]{0,39}$", description="as users call it: ipytune chat --endpoint NAME")
    base_url: str = Field(description="as sessions reach it, e.g. https://inference.example.org/v1")
    model: str = Field(description="the model's name on that server")
    key_env: str | None = Field(None, description="NAME of the session's variable that holds the key")
    key_file: str | None = Field(None, description="file with the key, absolute or below ~, as the session sees it")
    groups: tuple[str, ...] | None = Field(None, description="JupyterHub groups that may use it; everyone when absent")

    @model_validator(mode="before")
    @classmethod
    def _no_key(cls, fields: Any) -> Any:
        names = [str(name) for name in fields] if isinstance(fields, dict) else []
        for name in names:
            if name.lower() in _KEY_FIELDS:
                raise ValueError(f"`{name}`: no key belongs into the site file: {_REMEDY}")
        return fields

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if not _URL.fullmatch(url):
            raise ValueError(
                "an http:// or https:// URL without user, password, query or spaces is expected, "
                f"e.g. https://inference.example.org/v1; if it held a key, {_REMEDY}"
            )
        return url

    @field_validator("model")
    @classmethod
    def _plain_model(cls, model: str) -> str:
        if not _MODEL.fullmatch(model):
            raise ValueError("letters, digits and any of . _ / : @ + - are expected, e.g. meta-llama/Llama-3.1-8B")
        return model

    @field_validator("key_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                "the NAME of a variable (capital letters, digits, underscores) is expected, e.g. SITE_INFERENCE_KEY; "
                f"if this is the key itself, {_REMEDY}"
            )
        return name

    @field_validator("key_file")
    @classmethod
    def _path_of_a_file(cls, path: str | None) -> str | None:
        if path is not None and not _FILE.fullmatch(path):
            raise ValueError(
                "a path that begins with / or ~/ is expected, e.g. ~/.config/site/inference.key; "
                f"if this is the key itself, {_REMEDY}"
            )
        return path

    @model_validator(mode="after")
    def _one_place_for_the_key(self) -> SiteEndpoint:
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("key_env or key_file, not both")
        return self


def session_variables(endpoints: Iterable[SiteEndpoint]) -> dict[str, str]:
    """The environment by which a session learns of these endpoints; nothing when there are none."""
    fields = [each.model_dump(exclude={"groups"}, exclude_none=True) for each in endpoints]
    return {VARIABLE: json.dumps(fields, separators=(",", ":"))} if fields else {}
