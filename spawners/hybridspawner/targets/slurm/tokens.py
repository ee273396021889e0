"""Tokens for Slurm's REST API and for FirecREST: short-lived, kept until shortly before they expire, never logged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt

from ...program import kill, start_program
from ...within import within
from .client import SlurmUnavailable

Fetch = Callable[[str], Awaitable[str]]
"""Makes a new token for a user (of Slurm, or "" for a service); SlurmUnavailable when it cannot."""


class TokenCache:
    """One token a user, made by `fetch` when there is none that is good for another `margin` seconds."""

    def __init__(self, fetch: Fetch, margin: float = 30, life: float = 300) -> None:
        self._fetch, self._margin, self._life = fetch, margin, life
        self._tokens: dict[str, tuple[str, float]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, user: str = "") -> str:
        async with self._locks.setdefault(user, asyncio.Lock()):
            token, good_until = self._tokens.get(user, ("", 0.0))
            if time.time() > good_until - self._margin:
                token = await self._fetch(user)
                self._tokens[user] = token, expiry(token) or time.time() + self._life
            return token

    def drop(self, user: str = "") -> None:
        """Forget a token that was refused."""
        self._tokens.pop(user, None)


def expiry(token: str) -> float | None:
    """When a JWT expires, in seconds since 1970; None if it does not say (it is not checked: that is the server's)."""
    try:
        value = jwt.decode(token, options={"verify_signature": False}).get("exp")
    except jwt.PyJWTError:
        return None
    return float(value) if isinstance(value, int | float) else None


def signed_by(key_file: str, life: int = 300) -> Fetch:
    """Tokens signed with Slurm's own key (AuthAltParameters=jwt_key=…), as `scontrol token` makes them."""

    async def fetch(user: str) -> str:
        try:
            key = await asyncio.to_thread(Path(key_file).read_bytes)
        except OSError as error:
            raise SlurmUnavailable(f"Slurm's key {key_file} cannot be read: {error.strerror}") from None
        now = int(time.time())
        return jwt.encode({"iat": now, "exp": now + life, "sun": user}, key, algorithm="HS256")

    return fetch


def printed_by(command: tuple[str, ...], timeout: float = 20) -> Fetch:
    """Tokens that a command prints, bare or as `SLURM_JWT=…`; `{username}` in its words is the user's name."""

    async def fetch(user: str) -> str:
        argv = [word.replace("{username}", user) for word in command]
        try:
            process = await start_program(
                *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            raise SlurmUnavailable(f"{argv[0]} cannot be run: {error.strerror}") from None
        try:
            out, err = await within(process.communicate(), timeout)
        except asyncio.TimeoutError:
            raise SlurmUnavailable(f"{argv[0]} printed no token within {timeout:g} s") from None
        finally:
            kill(process)
        token = out.decode(errors="replace").strip().removeprefix("SLURM_JWT=")
        if process.returncode or not token or len(token.split()) != 1:
            reason = err.decode(errors="replace").strip()[:200] or f"status {process.returncode}"
            raise SlurmUnavailable(f"{argv[0]} printed no token: {reason}")
        return token

    return fetch
