"""The request reader gives the same requests however the network cuts the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.mock.reader import MAX_HEAD, BadHead, Request, RequestReader


def read(*parts: bytes) -> list[Request]:
    reader = RequestReader()
    return [request for part in parts for request in reader.feed(part)]


def by_length(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def in_chunks(path: str, parts: list[bytes], trailer: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%X;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"


def test_a_request_without_a_body() -> None:
    (request,) = read(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-Id:  7 \r\n\r\n")
    assert (request.method, request.path, request.body, request.keep) == ("GET", "/v1/models", b"", True)
    assert request.headers == {"host": "x", "x-request-id": "7"}


def test_several_requests_in_one_read() -> None:
    assert [
        request.body for request in read(by_length("/a", b"one") + by_length("/b", b"") + by_length("/c", b"2"))
    ] == [
        b"one",
        b"",
        b"2",
    ]


def test_a_body_in_chunks_with_extensions_and_a_trailer() -> None:
    requests = read(in_chunks("/a", [b"one", b" two\r\n"], b"X: y\r\n") + by_length("/b", b"after"))
    assert [request.body for request in requests] == [b"one two\r\n", b"after"]


def test_old_requests_and_those_that_say_so_end_the_connection() -> None:
    (old,) = read(b"GET / HTTP/1.0\r\n\r\n")
    (last,) = read(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert (old.keep, old.old, last.keep, last.old) == (False, True, False, False)


def test_a_client_that_waits_for_100_is_known_until_its_body_has_come() -> None:
    reader = RequestReader()
    assert not reader.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.wants_continue
    assert reader.feed(b"ok") and not reader.wants_continue


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF0\r\n", 413),
        (b"GET /" + b"x" * MAX_HEAD, 431),
    ],
)
def test_what_is_no_request_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(BadHead) as caught:
        read(raw)
    assert caught.value.status == status


_bodies = st.binary(max_size=40)
_wholes = st.one_of(
    _bodies.map(lambda body: (by_length("/l", body), body)),
    st.lists(_bodies.filter(bool), max_size=3).map(lambda parts: (in_chunks("/c", parts), b"".join(parts))),
    _bodies.map(lambda body: (in_chunks("/t", [body] if body else [], b"A: b\r\nC: d\r\n"), body)),
    st.just((b"\r\n" + by_length("/e", b""), b"")),
)


@given(st.lists(_wholes, max_size=4), st.data())
def test_any_cut_of_the_bytes_gives_the_same_requests(wholes: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    raw = b"".join(whole for whole, _ in wholes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert [request.body for request in read(*parts)] == [body for _, body in wholes]
    assert [request.body for request in read(*(raw[i : i + 1] for i in range(len(raw))))] == [
        body for _, body in wholes
    ]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_break_the_reader(parts: list[bytes]) -> None:
    try:
        read(*parts)
    except BadHead as error:
        assert error.status in (400, 413, 431)
