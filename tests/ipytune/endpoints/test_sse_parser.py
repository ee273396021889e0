"""The event parser gives the same events however the network cuts the bytes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipytune.endpoints import sse
from ipytune.endpoints.sse import EventParser, EventTooLarge


def parse(*reads: bytes) -> list[str]:
    parser = EventParser()
    return [data for read in reads for data in parser.feed(read)] + parser.close()


def test_several_events_in_one_read() -> None:
    assert parse(b"data: a\n\ndata: b\n\n") == ["a", "b"]


def test_comments_and_other_fields_are_no_events() -> None:
    assert parse(b": keep-alive\n\nevent: x\nid: 1\nretry: 5\n\ndata: a\n\n") == ["a"]


def test_data_of_several_lines_is_joined_and_only_one_space_is_dropped() -> None:
    assert parse(b"data:  a\ndata:b\n\n") == [" a\nb"]


def test_all_three_line_ends_count() -> None:
    assert parse(b"data: a\r\n\r\ndata: b\r\rdata: c\n\n") == ["a", "b", "c"]


def test_a_byte_order_mark_at_the_start_is_ignored() -> None:
    assert parse(b"\xef\xbb\xbfdata: a\n\n") == ["a"]


def test_the_last_event_counts_without_its_blank_line() -> None:
    assert parse(b"data: a\n\ndata: b") == ["a", "b"]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    parser = EventParser()
    with pytest.raises(EventTooLarge):
        for _ in range(20):
            parser.feed(b"data: 1234567890\n")


texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), min_size=1)


@settings(suppress_health_check=[HealthCheck.too_slow])  # building the table of all characters, once
@given(st.lists(texts, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_any_cut_of_the_bytes_gives_the_same_events(items: list[str], end: str, data: st.DataObject) -> None:
    raw = "".join(f"data: {item}{end}{end}" for item in items).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    reads = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert parse(*reads) == items


@given(st.binary())
def test_no_bytes_break_the_parser(raw: bytes) -> None:
    for data in parse(raw):
        assert isinstance(data, str)
