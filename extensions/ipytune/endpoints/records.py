"""An endpoint as a record: where it is, which model, and the *name* of what holds its key. Never the key.

A record can be printed, put into a notebook, a report or a widget's state. The key is read from the environment or
from a file at the moment of a request and lives no longer than that request.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator, model_validator

from ipytune.endpoints.errors import BadRequest, KeyMissing

# Upper case only: it is the convention for variables, and refuses nearly every key pasted here by mistake.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Endpoint(BaseModel):
    """One model behind one OpenAI-compatible URL.

    name: what people call it ("base", "tuned"), shown in panels and reports.
    base_url: as the OpenAI clients take it, with or without the trailing /v1.
    model: the model's name as the server knows it.
    key_env, key_file: the name of the environment variable, or the path of the file, that holds the key. At most one.
    """

    # An input shown in a validation error would be shown to everyone who reads the notebook: it may be a key.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    base_url: str
    model: str
    key_env: str | None = None
    key_file: Path | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_http_url(cls, value: str) -> str:
        usual = ValueError("base_url must be an http:// or https:// URL, for example http://127.0.0.1:8000/v1")
        if any(letter <= " " or letter == "\x7f" for letter in value):
            raise usual
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:  # its own words would repeat what was typed
            raise usual from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise usual
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(
                "base_url must hold no user, password or query: it is printed and saved. Put the key into an "
                "environment variable or a file and name that in key_env or key_file."
            )
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError(
                "key_env is the NAME of an environment variable (capital letters, digits, underscores), "
                "for example OPENAI_API_KEY. If this was the key itself, it has now been typed where it can be "
                "saved: clear the cell."
            )
        return value

    @model_validator(mode="after")
    def _one_place_for_the_key(self) -> Endpoint:
        if self.key_env is not None and self.key_file is not None:
            raise ValueError("give key_env or key_file, not both")
        return self

    @property
    def api_root(self) -> str:
        """The URL with its version segment: ".../v1" unless the base URL already ends in one."""
        last = self.base_url.rsplit("/", 1)[-1]
        return self.base_url if re.fullmatch(r"v\d+\w*", last) else f"{self.base_url}/v1"

    def read_key(self) -> SecretStr | None:
        """The key, read now. None when the endpoint names none.

        Raises KeyMissing when the variable or file that the record names is not there or is empty.
        """
        if self.key_env is not None:
            value = os.environ.get(self.key_env, "").strip()
            if not value:
                raise KeyMissing(
                    f"There is no key for the endpoint “{self.name}”.",
                    f"The environment variable {self.key_env} is not set in this session.",
                    f"Set {self.key_env} before the server starts, or name another variable or file in the endpoint.",
                )
            return SecretStr(value)
        if self.key_file is not None:
            path = self.key_file.expanduser()
            try:
                value = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise KeyMissing(
                    f"The key file of the endpoint “{self.name}” cannot be read.",
                    f"{self.key_file}: {getattr(error, 'strerror', None) or 'it is not text'}.",
                    "Write the key on one line into that file and make it readable for you alone (chmod 600).",
                ) from None
            if not value:
                raise KeyMissing(
                    f"The key file of the endpoint “{self.name}” is empty.",
                    f"{self.key_file} holds no text.",
                    "Write the key on one line into that file.",
                )
            return SecretStr(value)
        return None


# What people call the field into which a key would go, if there were one.
_KEY_FIELDS = frozenset({"key", "api_key", "apikey", "token", "secret", "password", "bearer", "authorization"})


def described(**fields: Any) -> Endpoint:
    """An Endpoint from what a person typed. Raises BadRequest with the findings in plain words, never the input."""
    if any(name.lower() in _KEY_FIELDS for name in fields):
        raise BadRequest(
            "An endpoint holds no key.",
            "It is printed and saved; a key written into it would be, too.",
            "Put the key into an environment variable or a file, and name that in key_env or key_file. Better exchange "
            "the one that was typed for a new one.",
        )
    try:
        return Endpoint.model_validate(fields)
    except ValidationError as error:
        findings = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        words = "; ".join(finding.replace("Value error, ", "") for finding in findings)
        raise BadRequest("This is no endpoint.", words.rstrip(".") + ".", "Change what is named.") from None
