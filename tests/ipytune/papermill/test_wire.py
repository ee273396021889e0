"""Messages of a kernel over its websocket: what is sent comes out as it was; what is none is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session
from jupyter_server.services.kernels.connection.base import deserialize_binary_message, serialize_binary_message

from ipytune.papermill.wire import decode, encode

session = Session()


@given(text=st.text(), buffers=st.lists(st.binary(max_size=50), max_size=3))
def test_there_and_back(text: str, buffers: list[bytes]) -> None:
    message = session.msg("comm_msg", content={"data": text}) | {"buffers": buffers}
    back = decode(encode(message, "shell"))
    assert back["content"] == {"data": text} and back["buffers"] == buffers and back["channel"] == "shell"
    assert back["msg_id"] == message["header"]["msg_id"] and back["header"]["date"] == message["header"]["date"]


def test_it_is_what_a_jupyter_server_speaks() -> None:
    message = session.msg("comm_msg", content={"a": 1}) | {"buffers": [b"xy", b""]}
    theirs = deserialize_binary_message(encode(message, "iopub"))
    assert theirs["channel"] == "iopub" and theirs["buffers"] == [b"xy", b""]
    assert decode(serialize_binary_message(dict(message)))["buffers"] == [b"xy", b""]


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_what_is_no_message_is_a_value_error(received: str | bytes) -> None:
    with pytest.raises(ValueError):
        decode(received)


def test_neither_is_other_json() -> None:
    for text in ("[]", "{}", json.dumps({"header": 1})):
        with pytest.raises(ValueError):
            decode(text)
