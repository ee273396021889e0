"""The processes of one mock that share a port: each is asked on a port of its own, so that any can tell for all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


async def ask_all(
    ports: Sequence[int], method: str, path: str, body: bytes, key: str | None
) -> list[tuple[int, bytes]]:
    """Status and body of each one's own answer. Raises OSError, ValueError or asyncio.IncompleteReadError."""
    return list(await asyncio.gather(*(_ask(port, method, path, body, key) for port in ports)))


async def _ask(port: int, method: str, path: str, body: bytes, key: str | None) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"{method} {path}?own HTTP/1.1", "Host: mock", f"Content-Length: {len(body)}", "Connection: close"]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.read()
        return int(head.split(b" ", 2)[1]), answer
    finally:
        writer.close()
