"""Answers as panels show them: an exchange's view as plain data for the browser, and as static HTML. Pure."""

from __future__ import annotations

from typing import Any

from ipytune.endpoints.exchange import State, View
from ipytune.endpoints.format import rate, seconds, summary, tokens
from ipytune.endpoints.records import Endpoint
from ipytune.widgets import picture

_FASTEST = 0.12  # seconds between pictures of a text that grows: reads as a stream
_BYTES_PER_SECOND = 150_000  # Jupyter's server drops output above 1 MB/s; the whole text is sent with every picture


def pause_for(views: list[View]) -> float:
    """Seconds until the next picture: the longer the texts, the rarer, so that the traffic stays bounded."""
    return max(_FASTEST, sum(len(view.text) + len(view.reasoning) for view in views) / _BYTES_PER_SECOND)


def shown(view: View) -> dict[str, Any]:
    """What the browser gets of one answer: strings to show, nothing to compute with."""
    return {
        "endpoint": view.endpoint.name,
        "model": view.endpoint.model,
        "state": view.state.value,
        "text": view.text,
        "reasoning": view.reasoning,
        "facts": [list(pair) for pair in facts(view)],
        "note": note(view),
        "problem": {} if view.error is None else vars_of(view.error),
    }


def vars_of(error: Exception) -> dict[str, str]:
    return {name: str(getattr(error, name, "")) for name in ("what", "why", "remedy")}


def facts(view: View) -> list[tuple[str, str]]:
    metrics = view.metrics
    if metrics.ttft is None:
        return [("Waiting", seconds(view.waited))] if view.state is State.WAITING else []
    if view.state is State.WRITING:
        counted = f"{metrics.output_tokens} so far"
    else:
        counted = f"≈ {metrics.output_tokens}" if metrics.estimated else f"{metrics.output_tokens}"
    return [
        ("First token", seconds(metrics.ttft)),
        ("Speed", rate(metrics.tokens_per_second)),
        ("Tokens", counted),
        ("Time", seconds(metrics.e2e)),
    ]


def note(view: View) -> str:
    """What a reader must know to read the numbers and the text rightly."""
    notes = []
    if view.state is State.CANCELLED:
        notes.append("Cancelled; this is what had come.")
    if view.state is State.DONE and not view.text and not view.reasoning:
        notes.append("The answer is empty: the model ended it at once.")
    if view.finish_reason == "length":
        notes.append("Cut at the largest number of tokens asked for (max_tokens).")
    if view.state.final and view.metrics.ttft is not None and view.metrics.estimated:
        notes.append("The server gave no token count; chunks were counted instead.")
    if view.metrics.attempts > 1:
        notes.append(f"Answered at the {view.metrics.attempts}. attempt.")
    return " ".join(notes)


def key_words(endpoint: Endpoint, typed: bool) -> str:
    """Where the key of an endpoint comes from, never the key."""
    if typed:
        return "key typed for this panel"
    if endpoint.key_env is not None:
        return f"key from ${endpoint.key_env}"
    if endpoint.key_file is not None:
        return "key from a file"
    return "no key"


def static_answer(view: View) -> str:
    """One answer as a column of static HTML; everything escaped."""
    if view.error is not None:
        line = view.error.what
    elif view.metrics.ttft is None:
        line = view.state.value
    else:
        line = summary(view.metrics)
    return picture.answer_column(f"{view.endpoint.name} · {view.endpoint.model}", view.text, line)


def text_line(view: View) -> str:
    counted = tokens(view.metrics) if view.metrics.ttft is not None else view.state.value
    return f"{view.endpoint.name} ({counted}): {view.text}"
