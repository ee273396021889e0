"""A response is read the same however the network cuts it, and what is no response is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.load.http1 import BadResponse, ResponseReader

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def _fed(reader: ResponseReader, pieces: list[bytes]) -> bytes:
    return b"".join(reader.feed(piece) for piece in pieces)


def _cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=8),
    st.lists(st.integers(0, 700), max_size=30),
    st.sampled_from([b"", b"; name=value"]),
    st.sampled_from([b"", b"Trailer: x\r\nOther: y\r\n"]),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    parts: list[bytes], at: list[int], extension: bytes, trailers: bytes
) -> None:
    data = _HEAD + b"".join(_chunk(part, extension) for part in parts) + b"0\r\n" + trailers + b"\r\n"
    reader = ResponseReader()
    assert _fed(reader, _cut(data, at)) == b"".join(parts)
    assert reader.complete and reader.reusable and reader.status == 200
    assert reader.headers["content-type"] == "text/event-stream"


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=10))
def test_a_body_of_given_length_is_the_same_however_it_is_cut(body: bytes, at: list[int]) -> None:
    data = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: %d\r\nRetry-After: 2\r\n\r\n" % len(body) + body
    reader = ResponseReader()
    assert _fed(reader, _cut(data, at)) == body
    assert reader.complete and reader.status == 429 and reader.headers["retry-after"] == "2"


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=6))
def test_any_bytes_at_all_are_read_or_refused(data: bytes, at: list[int]) -> None:
    reader = ResponseReader()
    try:
        _fed(reader, _cut(data, at))
        reader.close()
    except BadResponse:
        pass


@given(st.binary(max_size=120), st.lists(st.integers(0, 200), max_size=6))
def test_any_chunks_at_all_are_read_alike_whole_and_cut(data: bytes, at: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[bytes, bool] | None:
        reader = ResponseReader()
        try:
            return _fed(reader, [_HEAD, *pieces]), reader.complete
        except BadResponse:
            return None

    assert outcome([data]) == outcome(_cut(data, at))


def test_a_body_without_length_ends_with_the_connection_which_is_not_used_again() -> None:
    reader = ResponseReader()
    assert _fed(reader, [b"HTTP/1.1 200 OK\r\n\r\n", b"some", b" text"]) == b"some text"
    assert not reader.complete
    reader.close()
    assert reader.complete and not reader.reusable


def test_interim_responses_are_passed_over() -> None:
    reader = ResponseReader()
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    assert reader.feed(data) == b""
    assert reader.complete and reader.status == 204 and "link" not in reader.headers


def test_a_server_that_closes_is_not_asked_again_on_that_connection() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n")
    assert reader.complete and not reader.reusable
    reader.reset()
    reader.feed(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not reader.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        _HEAD + b"zz\r\n",
        _HEAD + b"0x5\r\nhello\r\n",
        _HEAD + b"1_0\r\n",
        _HEAD + b"5\r\nhelloX\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        _HEAD + b"1;" + b"y" * 9_000,
    ],
)
def test_what_breaks_the_rules_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


@pytest.mark.parametrize("cut", [b"", _HEAD[:30], _HEAD, _HEAD + b"5\r\nhel", _HEAD + b"5\r\nhello\r\n"])
def test_a_response_that_ends_too_early_is_refused(cut: bytes) -> None:
    reader = ResponseReader()
    reader.feed(cut)
    with pytest.raises(BadResponse, match="ended before"):
        reader.close()
