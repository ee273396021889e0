"""The schedule, the truth about it, cancelling, slots and counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipytune.mock import MockServer
from tests.ipytune.mock.talk import Talk, read_until, until

Serve = Callable[..., Talk]


def test_tokens_are_written_at_their_moments_and_never_before(serve: Serve) -> None:
    talk = serve(ttft=0.05, itl=0.01, tokens=10, tokens_per_chunk=2, reasoning_tokens=2)
    before = time.monotonic()
    talk.stream()
    after = time.monotonic()
    (truth,) = talk.server.truth()
    assert before < truth.arrival < truth.writes[-1] < after
    offsets = [0, 2, 4, 6, 8, 10]
    assert len(truth.writes) == len(offsets)
    for moment, offset in zip(truth.writes, offsets, strict=True):
        assert moment - truth.arrival >= 0.05 + offset * 0.01 - 1e-6
    assert truth.first_token == truth.writes[0] and truth.first_output == truth.writes[1]
    assert (truth.tokens, truth.prompt_tokens, truth.ended, truth.status) == (12, 3, "done", 200)


def test_a_late_token_does_not_delay_those_after_it(serve: Serve) -> None:
    talk = serve(ttft=0.0, itl=0.002, tokens=101)
    talk.stream()
    (truth,) = talk.server.truth()
    late = [moment - truth.arrival - index * 0.002 for index, moment in enumerate(truth.writes)]
    # Were the lateness of each added to the next, the last would carry the sum of all.
    assert min(late) >= -1e-6 and sum(late) > late[-1]


def test_jitter_delays_and_keeps_the_order(serve: Serve) -> None:
    first = serve(itl=0.001, jitter=0.005, tokens=20, seed=3)
    first.stream()
    (truth,) = first.server.truth()
    assert list(truth.writes) == sorted(truth.writes)
    assert all(m - truth.arrival >= i * 0.001 - 1e-6 for i, m in enumerate(truth.writes))


def test_the_end_may_come_after_the_last_token(serve: Serve) -> None:
    talk = serve(tokens=2, tail=0.1)
    with talk.raw() as connection:
        read_until(connection, b"[DONE]")
        now = time.monotonic()
    (truth,) = talk.server.truth()
    assert truth.last_token is not None and now - truth.last_token >= 0.1


def test_headers_may_be_slow(serve: Serve) -> None:
    talk = serve(tokens=1, header_delay=0.1)
    with talk.raw() as connection:
        assert connection.recv(1)
        (truth,) = talk.server.truth()
        assert time.monotonic() - truth.arrival >= 0.1


def test_a_whole_answer_comes_when_its_last_token_is_due(serve: Serve) -> None:
    talk = serve(ttft=0.05, itl=0.01, tokens=6)
    talk.post()
    (truth,) = talk.server.truth()
    assert truth.counts == (6,) and truth.writes[0] - truth.arrival >= 0.1 - 1e-6


def test_a_request_can_be_known_by_its_own_name(serve: Serve) -> None:
    talk = serve(tokens=1)
    response = talk.post(headers={"X-Request-Id": "load-7"})
    assert response.json()["id"] == "load-7" == response.headers["x-request-id"] == talk.server.truth()[0].id
    assert "\n" not in talk.post(headers={"X-Request-Id": "a b"}).json()["id"]


def test_a_client_that_leaves_stops_its_answer_and_is_counted(serve: Serve) -> None:
    talk = serve(itl=0.005, tokens=100_000)
    with talk.raw() as connection:
        read_until(connection, b'"content":"the"')
        assert talk.server.stats().in_flight == 1
    until(lambda: talk.server.stats().cancelled == 1)
    written = talk.server.stats().tokens
    (truth,) = talk.server.truth()
    assert truth.ended == "cancelled" and truth.tokens == written < 100_000
    assert talk.server.stats().in_flight == 0
    talk.post(mock={"tokens": 1, "itl": 0.05})
    assert talk.server.stats().tokens == written + 1


def test_requests_without_a_slot_wait_and_their_time_counts(serve: Serve) -> None:
    talk = serve(slots=1, itl=0.01, tokens=10)
    with talk.raw() as first, talk.raw() as second:
        until(lambda: talk.server.stats().waiting == 1)
        assert talk.server.stats().in_flight == 2
        read_until(first, b"[DONE]")
        read_until(second, b"[DONE]")
    one, two = talk.server.truth()
    assert one.last_token is not None and two.first_token is not None and two.first_token >= one.last_token
    assert talk.server.stats().peak_in_flight == 2


def test_who_leaves_the_queue_is_counted_and_the_next_comes_in(serve: Serve) -> None:
    talk = serve(slots=1, hang_after=1)
    with talk.raw() as first:
        read_until(first, b'"content":"the"')
        with talk.raw():
            until(lambda: talk.server.stats().waiting == 1)
        until(lambda: talk.server.stats().cancelled == 1)
        with talk.raw(mock={"hang_after": None}) as third:
            until(lambda: talk.server.stats().waiting == 1)
            first.close()
            read_until(third, b"[DONE]")
    assert talk.server.stats().completed == 1


def test_a_client_that_does_not_read_stops_nobody(serve: Serve) -> None:
    talk = serve(tokens=1)
    with talk.raw(mock={"text": "x" * 8_000_000}):
        until(lambda: talk.server.stats().blocked > 0)
        assert talk.stream().done


def test_counts_and_requests_are_forgotten_when_told(serve: Serve) -> None:
    talk = serve(tokens=3)
    talk.stream()
    talk.post(model="none")
    stats = talk.server.stats()
    assert (stats.requests, stats.completed, stats.refused, stats.tokens, stats.prompt_tokens) == (2, 1, 1, 3, 3)
    assert [asked.body["model"] for asked in talk.server.requests()] == ["mock", "none"]
    talk.server.reset()
    assert talk.server.stats().requests == 0 and talk.server.truth() == [] and talk.server.requests() == []


def test_the_metrics_bear_vllms_names(serve: Serve) -> None:
    talk = serve(tokens=5, ttft=0.012, itl=0.012)
    talk.stream()
    lines = talk.http.get("/metrics").text.splitlines()
    label = 'engine="0",model_name="mock"'
    assert f"vllm:generation_tokens_total{{{label}}} 5" in lines
    assert f"vllm:prompt_tokens_total{{{label}}} 3" in lines
    assert f'vllm:request_success_total{{{label},finished_reason="stop"}} 1' in lines
    assert f"vllm:num_requests_running{{{label}}} 0" in lines
    assert f"vllm:inter_token_latency_seconds_count{{{label}}} 4" in lines
    assert f'vllm:time_to_first_token_seconds_bucket{{le="0.01",{label}}} 0' in lines
    (truth,) = talk.server.truth()
    (total,) = [line for line in lines if line.startswith("vllm:time_to_first_token_seconds_sum")]
    assert truth.first_token is not None
    assert abs(float(total.split()[1]) - (truth.first_token - truth.arrival)) < 1e-6


def test_the_truth_of_another_process_is_on_our_clock(process: MockServer) -> None:
    import httpx

    before = time.monotonic()
    body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    assert httpx.post(f"{process.url}/chat/completions", json=body, trust_env=False).status_code == 200
    after = time.monotonic()
    truth = process.truth()[-1]
    assert before < truth.arrival < truth.writes[0] < truth.writes[-1] < after
    assert truth.tokens == 8
