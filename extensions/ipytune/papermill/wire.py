"""The messages of a kernel as they travel over its websocket: JSON text, or binary when there are buffers. Pure.

It is the protocol without a name, which every Jupyter server speaks.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from jupyter_client.jsonutil import extract_dates, json_default

Message = dict[str, Any]


def encode(message: Message, channel: str) -> str | bytes:
    """`message` for the wire."""
    body = {key: value for key, value in message.items() if key not in ("buffers", "msg_id", "msg_type")}
    text = json.dumps({**body, "channel": channel, "buffers": []}, default=json_default)
    buffers = [bytes(buffer) for buffer in message.get("buffers") or ()]
    if not buffers:
        return text
    parts = [text.encode(), *buffers]
    offsets, at = [], 4 * (len(parts) + 1)
    for part in parts:
        offsets.append(at)
        at += len(part)
    return b"".join([struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets), *parts])


def decode(received: str | bytes) -> Message:
    """The message, as jupyter_client's users know it. ValueError for what is none."""
    buffers: list[bytes] = []
    if isinstance(received, bytes):
        try:
            (count,) = struct.unpack_from("!I", received)
            offsets = [*struct.unpack_from(f"!{count}I", received, 4), len(received)]
            parts = [received[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
            received, buffers = parts[0].decode(), parts[1:]
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"not a message of a kernel: {error}") from None
    message = json.loads(received)
    if not isinstance(message, dict) or not isinstance(message.get("header"), dict):
        raise ValueError("not a message of a kernel: no header")
    header = extract_dates(message["header"])
    return {
        **message,
        "header": header,
        "parent_header": extract_dates(message.get("parent_header") or {}),
        "metadata": message.get("metadata") or {},
        "content": message.get("content") or {},
        "msg_id": header.get("msg_id", ""),
        "msg_type": header.get("msg_type", ""),
        "buffers": buffers,
    }
