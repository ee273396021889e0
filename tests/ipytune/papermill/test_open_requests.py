"""No answer of a kernel is handed on too early, waited for in vain, or brought about twice."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from ipytune.papermill.open_requests import Fate, Requests, made_up, settled
from ipytune.papermill.wire import Message, decode, encode

session = Session(username="test")


def asked(requests: Requests, kind: str = "execute_request", **content: Any) -> Message:
    message = session.msg(kind, content={"code": "1", "silent": False, **content})
    requests.sent(message, "shell")
    return message


def answer(to: Message, kind: str, channel: str, **content: Any) -> Message:
    made = session.msg(kind, content=content, parent=to["header"])
    return decode(encode(made, channel))


def idle(to: Message) -> Message:
    return answer(to, "status", "iopub", execution_state="idle")


def reply(to: Message, count: int = 1) -> Message:
    return answer(to, "execute_reply", "shell", status="ok", execution_count=count)


def test_a_reply_waits_for_the_idle_status() -> None:
    requests = Requests()
    cell = asked(requests)
    early = reply(cell, 7)
    assert requests.received(early) == []
    last = idle(cell)
    assert requests.received(last) == [last, early]
    assert requests.next_open() is None and requests.count == 7


def test_the_other_order_is_the_same() -> None:
    requests = Requests()
    cell = asked(requests)
    last, late = idle(cell), reply(cell)
    assert requests.received(last) == [last]
    assert requests.received(late) == [late]
    assert requests.next_open() is None


def test_output_and_what_belongs_to_nothing_pass_at_once() -> None:
    requests = Requests()
    cell = asked(requests)
    for message in (
        answer(cell, "stream", "iopub", name="stdout", text="x"),
        answer(cell, "status", "iopub", execution_state="busy"),
        idle(session.msg("execute_request", content={})),
    ):
        assert requests.received(message) == [message]
    assert requests.next_open() is not None


def test_silent_requests_and_questions_do_not_count_as_cells() -> None:
    requests = Requests()
    for message in (asked(requests, silent=True), asked(requests, "kernel_info_request")):
        request = requests.next_open()
        assert request is not None and not request.counted
        requests.received(idle(message))
        requests.received(reply(message, 9))
    assert requests.count == 0


@given(before=st.integers(0, 1000), ran=st.booleans(), restarted=st.booleans())
def test_what_became_of_a_cell_is_told_by_the_kernels_count(before: int, ran: bool, restarted: bool) -> None:
    fresh = 1  # IPython's number of the next cell, when it has run none
    now = (fresh if restarted else before + 1) + (1 if ran and not restarted else 0)
    fate = settled(made(), before, now)
    if restarted and before > 0:
        assert fate is Fate.OTHER_KERNEL
    else:
        assert fate is (Fate.FINISHED if now == before + 2 else Fate.NEVER_ARRIVED)


def made() -> Any:
    requests = Requests()
    asked(requests)
    return requests.next_open()


@pytest.mark.parametrize("error", [None, ("ValueError", "no")])
@pytest.mark.parametrize("seen", ["nothing", "idle", "reply"])
def test_answers_that_were_lost_are_made_up_so_that_the_cell_ends(error: Any, seen: str) -> None:
    requests = Requests()
    cell = asked(requests)
    if seen == "idle":
        requests.received(idle(cell))
    if seen == "reply":
        requests.received(reply(cell, 3))
    request = requests.next_open()
    assert request is not None
    handed = [
        message
        for lost in made_up(request, session, 3, error)
        for message in requests.received(decode(encode(lost, lost["channel"])))
    ]
    assert requests.next_open() is None and requests.count == 3
    last = handed[-1]
    assert last["msg_type"] == "execute_reply" and last["content"]["execution_count"] == 3
    assert last["content"]["status"] == ("error" if error and seen != "reply" else "ok")
    assert all(message["parent_header"]["msg_id"] == cell["header"]["msg_id"] for message in handed)
    if seen != "idle":
        assert "connection was lost" in handed[0]["content"]["text"]
