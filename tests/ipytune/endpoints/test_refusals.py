"""A refused request becomes the error that its reader can act on."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ipytune.endpoints import (
    BadRequest,
    BudgetExceeded,
    Endpoint,
    EndpointError,
    ModelNotFound,
    RateLimited,
    ServerFailed,
    Unauthorized,
)
from ipytune.endpoints.refusals import error_for, retry_after_seconds, server_words, worth_listing

ENDPOINT = Endpoint(name="e", base_url="http://gateway:4000/v1", model="big")
LITELLM_KEY = "key not allowed to access model. This key can only access models=['small']. Tried to access big"
OPENAI_QUOTA = "You exceeded your current quota, please check your plan and billing details."
GOOGLE_PACE = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute' of service 'x'"


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (402, "Insufficient credits", BudgetExceeded),
        (400, "Budget has been exceeded! Current cost: 12.3, Max budget: 10.0", BudgetExceeded),
        (429, "ExceededBudget: User ada has exceeded their budget. Current spend: 2; Max Budget: 1", BudgetExceeded),
        (403, "team is over budget", BudgetExceeded),
        (429, OPENAI_QUOTA, BudgetExceeded),
        (429, "insufficient_quota", BudgetExceeded),
        (429, GOOGLE_PACE, RateLimited),
        (429, "Rate limit exceeded: tpm limit 1000, your budget of tokens has been exceeded", RateLimited),
        (429, "Slow down", RateLimited),
        (401, "Invalid proxy server token", Unauthorized),
        (403, "Forbidden", Unauthorized),
        (404, "Not Found", ModelNotFound),
        (400, "max_tokens is too large", BadRequest),
        (422, "Unexpected field", BadRequest),
        (500, "boom", ServerFailed),
        (503, "loading", ServerFailed),
        (307, "", BadRequest),
    ],
)
def test_each_refusal_has_its_error_with_the_servers_words_and_a_remedy(
    status: int, words: str, error: type[EndpointError]
) -> None:
    told = error_for(ENDPOINT, status, words, has_key=True)
    assert type(told) is error and told.remedy and str(status) in told.what
    assert status == 307 or words in told.why


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "The model `big` does not exist."),
        (400, "Invalid model name passed in model=big. Call `/v1/models` to view available models for your key."),
        (401, LITELLM_KEY),
        (500, "failed"),
    ],
)
def test_a_model_that_is_not_there_lists_those_that_are(status: int, words: str) -> None:
    assert worth_listing(status, words)
    told = error_for(ENDPOINT, status, words, available=("small", "tiny"), has_key=True)
    assert isinstance(told, ModelNotFound) and told.available == ("small", "tiny") and "small, tiny" in told.why


def test_a_prompt_that_is_too_long_is_not_taken_for_a_missing_model() -> None:
    words = "This model's maximum context length is 4096 tokens."
    assert not worth_listing(400, words)
    assert type(error_for(ENDPOINT, 400, words, available=("alias",))) is BadRequest


def test_a_completion_at_a_chat_service_is_told_so() -> None:
    assert "chat messages" in error_for(ENDPOINT, 404, "Not Found", route="completions").remedy


def test_a_redirect_says_where_to_without_what_may_be_secret() -> None:
    told = error_for(ENDPOINT, 302, "", location="https://user:SECRET@login.example/realm?key=SECRET#SECRET")
    assert "https://login.example/realm" in told.what and "SECRET" not in str(told)
    assert error_for(ENDPOINT, 302, "", location="http://[::1").what  # what is no URL breaks nothing


def test_retry_after_is_a_number_or_a_moment() -> None:
    moment = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    waited = retry_after_seconds(moment)
    assert waited is not None and 30 < waited < 95
    past = format_datetime(datetime(2001, 1, 1, tzinfo=timezone.utc), usegmt=True)
    assert retry_after_seconds(past) == 0
    assert retry_after_seconds("Sun, 06 Nov 1994 08:49:47 GMT", "Sun, 06 Nov 1994 08:49:37 GMT") == 10
    for odd in (None, "", "soon", "-1", "inf", "nan", "Sun, 99 Nov 1994 08:49:47 GMT"):
        assert retry_after_seconds(odd) is None


@settings(deadline=None)
@given(st.text(max_size=60), st.none() | st.text(max_size=40))
def test_no_header_breaks_the_reader(header: str, date: str | None) -> None:
    seconds = retry_after_seconds(header, date)
    assert seconds is None or seconds >= 0


@settings(deadline=None)
@given(st.binary(max_size=2000), st.sampled_from(["", "application/json", "text/html"]))
def test_the_words_of_any_body_are_one_short_harmless_line(raw: bytes, kind: str) -> None:
    words = server_words(raw, kind)
    assert len(words) <= 401 and "\n" not in words and "\x1b" not in words


@settings(deadline=None)
@given(st.integers(0, 500))
def test_no_half_of_a_key_is_left_where_words_are_cut_off(before: int) -> None:
    raw = json.dumps({"error": {"message": "x" * before + " SECRETKEY123 was refused"}}).encode()
    words = server_words(raw, "application/json", SecretStr("SECRETKEY123"))
    assert "SEC" not in words
