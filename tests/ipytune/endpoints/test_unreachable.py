"""No connection, or one that is not to be trusted: the message says which, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ipytune.endpoints import BadRequest, Client, Endpoint, TimedOut, Timeouts, Unreachable, Untrusted

pytest.importorskip("cryptography")
from tests.ipytune.endpoints.certificates import authority, certified, tls_server

USER = [{"role": "user", "content": "hi"}]


def at(port: int, scheme: str = "https", host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(name="e", base_url=f"{scheme}://{host}:{port}", model="m")


async def refusal(endpoint: Endpoint) -> Unreachable:
    async with Client(Timeouts(connect=5)) as client:
        with pytest.raises(Unreachable) as asked:
            await client.ask(endpoint, USER)
        with pytest.raises(Unreachable) as listed:
            await client.models(endpoint)
    assert str(asked.value) == str(listed.value)
    return asked.value


def by_itself(folder: Path) -> Path:
    return certified(folder, None)


def for_another(folder: Path) -> Path:
    return certified(folder, authority(folder), host="other.example")


def expired(folder: Path) -> Path:
    return certified(folder, authority(folder), days=-2)


def of_nobody_known(folder: Path) -> Path:
    return certified(folder, authority(folder))


@pytest.mark.parametrize(
    ("make", "known", "why", "remedy"),
    [
        (by_itself, False, "signed by itself", "SSL_CERT_FILE"),
        (of_nobody_known, False, "authority is not known here", "SSL_CERT_FILE"),
        (for_another, True, "for another name", "into the URL"),
        (expired, True, "has expired", "clock"),
    ],
)
async def test_a_certificate_that_is_not_to_be_trusted_says_why(
    make: Callable[[Path], Path],
    known: bool,
    why: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = make(tmp_path)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with tls_server(certificate) as port:
        error = await refusal(at(port))
    assert isinstance(error, Untrusted)
    assert why in error.why and remedy in error.remedy and "not to be trusted" in error.what


async def test_an_authority_named_in_ssl_cert_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certified(tmp_path, authority(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with tls_server(certificate) as port:
        async with Client() as client:
            assert await client.models(at(port)) == ("m",)


async def test_https_to_a_server_without_tls_says_so() -> None:
    with tls_server(None) as port:
        error = await refusal(at(port))
    assert isinstance(error, Untrusted) and "http://" in error.remedy


def test_certificates_that_cannot_be_read_are_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(BadRequest, match="SSL_CERT_FILE"):
        Client()
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(BadRequest, match="SSL_CERT_FILE"):
        Client()


async def test_a_port_where_nothing_listens_is_told_apart_from_an_unknown_name() -> None:
    with socket.socket() as taken:  # bound, but nobody listens there
        taken.bind(("127.0.0.1", 0))
        refused = await refusal(at(taken.getsockname()[1], "http"))
    assert "nothing listens" in refused.why
    unknown = await refusal(at(80, "http", "no-such-host.invalid"))
    assert "no-such-host.invalid" in unknown.why and unknown.remedy


async def test_a_connection_that_nobody_takes_runs_into_its_clock() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]  # the queue is full: the kernel drops what comes after
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            async with Client(Timeouts(connect=0.3)) as client:
                with pytest.raises(TimedOut) as caught:
                    await client.ask(at(full.getsockname()[1], "http"), USER)
        finally:
            for each in waiting:
                each.close()
    assert caught.value.clock == "connect"


async def test_a_proxy_that_does_not_pass_a_request_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    error = await refusal(at(80, "http", "inference.invalid"))
    assert error.why and error.remedy
