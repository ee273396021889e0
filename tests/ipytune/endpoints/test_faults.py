"""What can go wrong with a server, and what its user is told: each fault happens for real, over a real connection."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import ipaddress
import os
import signal
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipytune.endpoints import (
    Client,
    Endpoint,
    EndpointError,
    ModelNotFound,
    Piece,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    Timeouts,
    Unauthorized,
    Unreachable,
)
from ipytune.mock import Behaviour, MockServer, start_mock

USER = [{"role": "user", "content": "hi"}]
MARKER = "marker0of0a0secret"


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with start_mock(Behaviour(tokens=8, models=("mock", "other")), process=False) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(Timeouts(connect=5, first_token=10, between_tokens=10, total=30)) as made:
        yield made


async def fails(client: Client, endpoint: Endpoint, **options: Any) -> EndpointError:
    """The error of a request, whose three parts must all be there."""
    with pytest.raises(EndpointError) as caught:
        await client.ask(endpoint, USER, **options)
    error = caught.value
    assert error.what and error.why and error.remedy, error
    return error


async def pieces_until_it_fails(client: Client, endpoint: Endpoint, **options: Any) -> tuple[list[Piece], str]:
    """What came before a stream was cut, as pieces and as what the answer kept."""
    came: list[Piece] = []
    with pytest.raises(StreamCut, match="is kept"):
        async with client.stream(endpoint, USER, **options) as stream:
            async for piece in stream:
                came.append(piece)
    return came, stream.answer.text


async def test_a_server_that_is_killed_in_the_middle_of_an_answer(client: Client) -> None:
    with start_mock(Behaviour(tokens=100_000, itl=0.005)) as doomed:
        came: list[Piece] = []
        with pytest.raises((StreamCut, Unreachable)) as caught:
            async with client.stream(doomed.endpoint(), USER) as stream:
                async for piece in stream:
                    came.append(piece)
                    if len(came) == 3:
                        os.kill(doomed.pids[0], signal.SIGKILL)
        assert len(came) >= 3 and stream.answer.text == "".join(piece.text for piece in came)
        assert caught.value.remedy
        assert isinstance(await fails(client, doomed.endpoint()), Unreachable)


@pytest.mark.parametrize("cut", ["fin", "reset"])
async def test_a_connection_that_ends_in_the_middle(client: Client, server: MockServer, cut: str) -> None:
    came, kept = await pieces_until_it_fails(client, server.endpoint(), mock={"cut_after": 3, "cut": cut})
    assert len(came) == 3 and kept == "".join(piece.text for piece in came)


async def test_too_many_requests_are_waited_for_when_it_is_short(client: Client) -> None:
    behaviour = Behaviour(error_first=1, error_status=429, retry_after=0.01, text="now")
    with start_mock(behaviour, process=False) as busy:
        answer = await client.ask(busy.endpoint(), USER)
        assert (answer.text, answer.metrics.attempts, busy.stats().requests) == ("now", 2, 2)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_too_many_requests_are_told_with_the_time_to_wait(client: Client, server: MockServer, form: str) -> None:
    fault = {"error_rate": 1, "error_status": 429, "retry_after": 900, "retry_after_form": form}
    error = await fails(client, server.endpoint(), mock=fault)
    assert isinstance(error, RateLimited) and error.retry_after is not None
    assert 800 <= error.retry_after <= 900 and "Wait" in error.remedy


async def test_a_server_that_fails_says_where_to_look(client: Client, server: MockServer) -> None:
    before = server.stats().requests
    error = await fails(client, server.endpoint(), mock={"error_rate": 1, "error_status": 500})
    assert isinstance(error, ServerFailed) and "log" in error.remedy
    assert server.stats().requests == before + 1  # it may have begun: it is not asked again


async def test_a_server_that_is_starting_is_asked_again(client: Client) -> None:
    with start_mock(Behaviour(error_first=2, error_status=503, text="up"), process=False) as starting:
        answer = await client.ask(starting.endpoint(), USER)
        assert (answer.text, answer.metrics.attempts) == ("up", 3)


@pytest.mark.parametrize(
    ("fault", "timeouts", "clock"),
    [
        ({"hang_before": True}, Timeouts(first_token=0.2), "first_token"),
        ({"hang_before": True, "comment_every": 0.01}, Timeouts(first_token=0.2), "first_token"),
        ({"header_delay": 60}, Timeouts(first_token=0.2), "first_token"),
        ({"hang_after": 3}, Timeouts(between_tokens=0.2), "between_tokens"),
        ({"hang_after": 3, "comment_every": 0.01}, Timeouts(between_tokens=0.2), "between_tokens"),
        ({"itl": 0.02, "tokens": 10_000}, Timeouts(total=0.3), "total"),
    ],
)
async def test_a_stall_is_told_by_its_clock_and_ends_at_the_server(
    fault: dict[str, Any], timeouts: Timeouts, clock: str
) -> None:
    with start_mock(process=False) as server:
        async with Client(timeouts) as client:
            error = await fails(client, server.endpoint(), mock=fault)
        assert isinstance(error, TimedOut) and error.clock == clock and "Timeouts(" in error.remedy
        await until(lambda: server.stats().cancelled == 1)


async def test_half_a_json_is_no_chat_stream(client: Client, server: MockServer) -> None:
    error = await fails(client, server.endpoint(), mock={"bad_json_after": 2})
    assert isinstance(error, (ServerFailed, StreamCut))


async def test_an_error_inside_the_stream_is_quoted(client: Client, server: MockServer) -> None:
    error = await fails(client, server.endpoint(), mock={"error_after": 2})
    assert isinstance(error, ServerFailed) and "The engine has failed" in str(error)


async def test_an_unknown_model_is_told_with_those_there_are(client: Client, server: MockServer) -> None:
    error = await fails(client, server.endpoint(model="none"))
    assert isinstance(error, ModelNotFound) and error.available == ("mock", "other")
    assert "mock, other" in error.why and "listed names" in error.remedy


async def test_a_key_that_is_refused_is_never_repeated(client: Client) -> None:
    with start_mock(Behaviour(key="another", repeat_key=True), process=False) as guarded:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OBERALP_TEST_KEY", MARKER)
            error = await fails(client, guarded.endpoint(key_env="OBERALP_TEST_KEY"))
        assert isinstance(error, Unauthorized) and "key" in error.remedy
        assert MARKER not in str(error) + repr(error)
        assert isinstance(await fails(client, Endpoint(name="e", base_url=guarded.url, model="mock")), Unauthorized)


async def test_characters_cut_between_two_reads_and_comments_and_cr_lf_are_no_fault(
    client: Client, server: MockServer
) -> None:
    odd = {"text": "Zürich – Säntis ❄", "split_utf8": True, "comments": True, "crlf": True, "tokens_per_chunk": 2}
    assert (await client.ask(server.endpoint(), USER, mock=odd)).text == "Zürich – Säntis ❄"


async def test_a_cancelled_answer_stops_at_the_server(client: Client) -> None:
    with start_mock(Behaviour(tokens=100_000, itl=0.005), process=False) as server:
        begun = asyncio.Event()

        async def ask() -> None:
            async with client.stream(server.endpoint(), USER) as stream:
                async for _ in stream:
                    begun.set()

        task = asyncio.create_task(ask())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.stats().cancelled == 1)


async def test_a_certificate_that_nobody_signed_is_told_as_that(client: Client, tmp_path: Path) -> None:
    with https_server(tmp_path) as port:
        url = f"https://127.0.0.1:{port}/v1"
        error = await fails(client, Endpoint(name="secure", base_url=url, model="m"))
        assert "certificate" in str(error).lower() and "SSL_CERT_FILE" in error.remedy
        # What the remedy says helps.
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
            async with Client() as trusting:
                assert (await trusting.ask(Endpoint(name="secure", base_url=url, model="m"), USER)).text == "safe"


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


@contextmanager
def https_server(folder: Path) -> Iterator[int]:
    """A server of one short answer behind a certificate that it signed itself; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b'data: {"choices":[{"delta":{"content":"safe"},"finish_reason":"stop"}]}\n\n')
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Shaking hands in the accepting thread would let one client that breaks off stop it.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mock")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return pem, key_file
