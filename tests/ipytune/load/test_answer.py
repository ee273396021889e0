"""From the bytes of an answer and the moments at which they came to its record."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ipytune.load.answer import AnswerReader, is_stream
from ipytune.load.flight import Fault, Flight
from ipytune.load.records import Kind, Record

KEY = SecretStr("marker-key-4711")


def _event(**choice: object) -> bytes:
    body = {"id": "chat-7", "choices": [{"index": 0, **choice}]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


ROLE = _event(delta={"role": "assistant", "content": ""})
WORD = _event(delta={"content": "grüezi"})
THOUGHT = _event(delta={"reasoning_content": "hm"})
STOP = _event(delta={}, finish_reason="stop")
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}\n\n'
DONE = b"data: [DONE]\n\n"


def _flight(reads: list[tuple[int, bytes]], fault: Fault | None = None, **headers: str) -> Flight:
    loop = asyncio.new_event_loop()
    try:
        flight = Flight(3, 10, True, loop.create_future())
    finally:
        loop.close()
    flight.begun, flight.sent, flight.status, flight.ended = 20, 30, 200, 9000
    flight.headers = headers or {"content-type": "text/event-stream"}
    flight.reads = reads
    flight.fault = fault
    return flight


def _record(reads: list[tuple[int, bytes]], fault: Fault | None = None, **headers: str) -> Record:
    return _digested(_flight(reads, fault, **headers))


def _digested(flight: Flight, batch: int = 1000) -> Record:
    """As the runner does it: in batches while it comes, in portions, then the rest."""
    answer, reads = AnswerReader(KEY), flight.reads
    for start in range(0, len(reads), batch):
        for _ in answer.read(reads[start : start + batch] if is_stream(flight) else ()):
            pass
    return answer.record(flight, reads)


def test_a_plain_answer() -> None:
    record = _record([(100, ROLE), (200, WORD), (350, WORD), (400, STOP), (410, USAGE), (420, DONE)])
    assert record.ok
    assert record.times.tolist() == [200, 350]
    assert (record.ttft, record.e2e) == (pytest.approx(170e-9), pytest.approx(320e-9))
    assert (record.tokens, record.prompt_tokens, record.estimated) == (4, 9, False)
    assert record.response_id == "chat-7"
    assert (record.queue, record.connect) == (pytest.approx(10e-9), pytest.approx(10e-9))


def test_reasoning_is_the_first_token_but_not_the_first_of_the_answer() -> None:
    record = _record([(100, THOUGHT), (200, WORD), (300, STOP), (300, DONE)])
    assert (record.ttft, record.ttfot) == (pytest.approx(70e-9), pytest.approx(170e-9))
    assert record.estimated and record.tokens == 2


def test_several_events_in_one_read_came_at_the_same_moment_comments_at_none() -> None:
    record = _record([(50, b": keep-alive\n\n"), (100, WORD + WORD), (200, b": x\n\n" + WORD + STOP + DONE)])
    assert record.times.tolist() == [100, 100, 200]


@given(st.lists(st.integers(1, 900), max_size=25), st.booleans())
def test_however_the_stream_is_cut_into_reads_all_tokens_are_found_in_order(at: list[int], crlf: bool) -> None:
    stream = ROLE + THOUGHT + WORD + WORD + b": c\n\n" + WORD + STOP + USAGE + DONE
    if crlf:
        stream = stream.replace(b"\n", b"\r\n")
    edges = [0, *sorted(min(place, len(stream)) for place in at), len(stream)]
    cuts = [stream[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]
    record = _digested(_flight(list(enumerate(cuts, 100))), batch=3)
    assert record.ok and len(record.times) == 4 and record.tokens == 4
    assert record.times.tolist() == sorted(record.times)


def test_an_answer_that_ends_without_a_word_that_it_is_complete_was_cut() -> None:
    assert _record([(100, WORD)]).error == Kind.CUT
    half = _record([(100, WORD), (200, b'data: {"choi')], Fault(Kind.CUT, "The connection broke."))
    assert half.error == Kind.CUT and half.times.tolist() == [100]


@pytest.mark.parametrize(
    ("reads", "kind"),
    [
        ([(1, b"data: {\n\n")], Kind.UNREADABLE),
        ([(1, b'data: {"error": {"message": "key marker-key-4711 is out"}}\n\n')], Kind.IN_STREAM),
        ([(1, STOP), (2, DONE)], Kind.EMPTY),
    ],
)
def test_what_is_wrong_in_a_stream_is_told_without_the_key(reads: list[tuple[int, bytes]], kind: str) -> None:
    record = _record(reads)
    assert record.error == kind and record.message
    assert "marker-key-4711" not in json.dumps(record.as_json())


def test_an_answer_that_is_no_stream_is_told_so_without_the_key() -> None:
    record = _record([(1, b'{"detail": "marker-key-4711"}')], **{"content-type": "application/json"})
    assert record.error == Kind.NO_STREAM and "marker-key-4711" not in record.message


def test_a_refusal_keeps_the_servers_words_without_the_key() -> None:
    flight = _flight([(1, b'{"error": {"message": "slow down, marker-key-4711"}}')])
    flight.status = 429
    record = _digested(flight)
    assert record.error == "HTTP 429" and "slow down" in record.message and "marker-key-4711" not in record.message


def test_a_record_survives_the_pipe() -> None:
    record = _record([(100, ROLE), (200, WORD), (350, WORD), (400, STOP), (410, USAGE), (420, DONE)])
    assert Record.unpacked(json.loads(json.dumps(record.packed()))) == record
    assert Record.unpacked(json.loads(json.dumps(Record(5).packed()))) == Record(5)
