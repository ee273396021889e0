"""What a mock gets wrong when told to, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import pytest

from ipytune.mock import Behaviour
from tests.ipytune.mock.talk import Talk, read_to_end, read_until, until

Serve = Callable[..., Talk]
MARKER = "marker0of0a0secret"


def test_a_share_is_refused_and_the_same_ones_again(serve: Serve) -> None:
    talk = serve(error_rate=0.5, error_status=503, seed=7, tokens=1)
    first = [talk.post().status_code for _ in range(30)]
    talk.server.reset()
    assert [talk.post().status_code for _ in range(30)] == first
    assert set(first) == {200, 503}
    assert talk.server.stats().refused == first.count(503)


def test_the_first_ones_are_refused(serve: Serve) -> None:
    talk = serve(error_first=2, error_status=502)
    assert [talk.post().status_code for _ in range(4)] == [502, 502, 200, 200]


def test_a_refusal_says_when_to_come_again(serve: Serve) -> None:
    talk = serve(error_rate=1, error_status=429, retry_after=1.5)
    refused = talk.post()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1.5")
    assert "Rate limit" in refused.json()["error"]["message"]
    talk.server.behave(retry_after=3600, retry_after_form="date")
    when = parsedate_to_datetime(talk.post().headers["retry-after"])
    assert 3000 < (when - datetime.now(timezone.utc)).total_seconds() <= 3600


@pytest.mark.parametrize(("body", "kind"), [("<html>busy</html>", "text/html"), ('{"detail": 1}', "application/json")])
def test_a_refusal_may_say_anything(serve: Serve, body: str, kind: str) -> None:
    refused = serve(error_rate=1, error_body=body).post()
    assert refused.text == body and refused.headers["content-type"] == kind


def test_fields_that_it_does_not_know_are_refused(serve: Serve) -> None:
    talk = serve(refuses=("stream_options",))
    refused = talk.post(stream=True, stream_options={"include_usage": True})
    assert refused.status_code == 422 and "stream_options" in refused.text
    assert talk.post(stream=True).status_code == 200


@pytest.mark.parametrize("after", [0, 3])
def test_a_stream_ends_in_the_middle(serve: Serve, after: int) -> None:
    talk = serve(tokens=9, cut_after=after, cut="fin")
    with talk.raw() as connection:
        seen = read_to_end(connection)
    assert seen.count(b'"content":"') - 1 == after and not seen.endswith(b"0\r\n\r\n")
    assert talk.server.stats().cut == 1 and talk.server.truth()[0].ended == "cut"


def test_a_stream_ends_with_a_reset(serve: Serve) -> None:
    talk = serve(tokens=9, cut_after=2, cut="reset")
    with talk.raw() as connection, pytest.raises(ConnectionResetError):
        read_to_end(connection)


def test_an_answer_that_is_not_streamed_is_cut_in_its_body(serve: Serve) -> None:
    talk = serve(cut_after=2, cut="fin")
    with talk.raw(stream=False) as connection:
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert 0 < len(body) < length


@pytest.mark.parametrize(("fields", "tokens"), [({"hang_before": True}, 0), ({"hang_after": 2}, 2)])
def test_a_stream_stalls_after_200(serve: Serve, fields: dict[str, object], tokens: int) -> None:
    talk = serve(**fields)
    with talk.raw() as connection:
        read_until(connection, b'"role":"assistant"')
        until(lambda: talk.server.stats().tokens == tokens)
        assert talk.server.stats().in_flight == 1
    until(lambda: talk.server.stats().cancelled == 1)


def test_half_a_json_and_an_error_object_come_in_the_stream(serve: Serve) -> None:
    talk = serve(bad_json_after=1)
    with talk.raw() as connection:
        raw = read_until(connection, b"[DONE]")
    assert any(line.startswith(b"data: {") and not line.endswith(b"}") for line in raw.split(b"\n"))
    with pytest.raises(json.JSONDecodeError):
        talk.post().json()
    talk.server.behave(bad_json_after=None, error_after=2)
    seen = talk.stream()
    assert seen.events[-1]["error"]["code"] == 500 and len(seen.text.split()) == 2 and seen.done
    assert talk.post().status_code == 500


def test_it_wants_its_key_and_tells_nobody(serve: Serve) -> None:
    talk = serve(Behaviour(key=MARKER, tokens=1))
    assert talk.http.get("/health").status_code == 200
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/mock/stats")):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert talk.http.request(method, path, headers=headers, json={}).status_code == 401
    assert talk.post(headers={"Authorization": f"Bearer {MARKER}"}).status_code == 200
    right = {"Authorization": f"Bearer {MARKER}"}
    told = "".join(
        talk.http.get(path, headers=right).text
        for path in ("/mock/behaviour", "/mock/requests", "/mock/truth", "/mock/stats", "/metrics", "/v1/models")
    )
    assert MARKER not in told + repr(talk.server) + repr(talk.server.endpoint())
    key_file = talk.server.endpoint().key_file
    assert key_file is not None and key_file.read_text() == MARKER and key_file.stat().st_mode & 0o077 == 0
    talk.server.stop()
    assert not key_file.exists()


def test_a_careless_server_repeats_the_key(serve: Serve) -> None:
    talk = serve(error_rate=1, repeat_key=True)
    assert MARKER in talk.post(headers={"Authorization": f"Bearer {MARKER}"}).text


def test_the_behaviour_can_be_changed_over_the_wire(serve: Serve) -> None:
    talk = serve()
    assert talk.http.post("/mock/behaviour", json={"text": "changed"}).json()["text"] == "changed"
    assert talk.stream().text == "changed"
    refused = talk.http.post("/mock/behaviour", json={"txt": 1})
    assert refused.status_code == 400 and "Did you mean text" in refused.json()["error"]["message"]
    assert talk.http.post("/mock/behaviour", content=b"{").status_code == 400
    assert talk.http.get("/mock/nothing").status_code == 404
