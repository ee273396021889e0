"""Answers as panels show them: plain data for the browser, sent in small portions, and static HTML. Pure.

A text that grows is not sent whole with every picture: `Growth` sends what was added, and a whole picture now and then,
from which a page that is opened later begins. Text is made harmless here (`endpoints.untrusted`) before it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ipytune.compare.stability import groups, sentence
from ipytune.endpoints.exchange import State, View
from ipytune.endpoints.format import rate, seconds, summary, tokens
from ipytune.endpoints.records import Endpoint
from ipytune.endpoints.untrusted import one_line, visible
from ipytune.widgets import picture

FASTEST = 0.125  # seconds between pictures of a text that grows: reads as a stream
_CHARACTERS_PER_SECOND = 150_000  # Jupyter's server drops output above 1 MB/s; a character has up to four bytes
_ADDED = 4_000  # characters; from here on, and from a quarter of the whole on, a whole picture takes their place
_HISTORY = 200_000  # characters of earlier answers that the browser keeps
_EXCERPT = 2_000  # of one that is shortened
_TOKENS_SHOWN = 64
_GROUPS_SHOWN = 8
_GROWING = ("text", "reasoning")


class Growth:
    """Pictures of answers that grow, as little traffic: `whole` pictures and, since the last of them, what was `added`.

    Both are lists of one dict an answer and carry the version they belong to; `joined` puts them together.
    """

    def __init__(self) -> None:
        self._version = 0
        self._whole: list[dict[str, Any]] = []

    def step(self, answers: Sequence[dict[str, Any]], last: bool = False) -> tuple[dict[str, Any], float]:
        """What to publish ("whole" only when it has changed, and "added"), and the seconds until the next picture.

        last: these answers do not grow any more.
        """
        added = self._added(answers)
        size = sum(len(item[name]) for item in added or () for name in _GROWING)
        if last or added is None or size > max(_ADDED, _characters(self._whole) // 4):
            self._version += 1
            self._whole = [{**item, "version": self._version} for item in answers]
            traits: dict[str, Any] = {"whole": self._whole, "added": []}
            size = _characters(self._whole)
        else:
            traits = {"added": added}
        return traits, max(FASTEST, size / _CHARACTERS_PER_SECOND)

    def _added(self, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """What the answers have beyond the last whole picture; None when they are not its continuation."""
        if not self._version or len(answers) != len(self._whole):
            return None
        added = []
        for item, old in zip(answers, self._whole, strict=True):
            if any(not item[name].startswith(old[name]) for name in _GROWING):
                return None
            added.append(
                {**item, **{name: item[name][len(old[name]) :] for name in _GROWING}, "version": self._version}
            )
        return added


def joined(whole: Sequence[Mapping[str, Any]], added: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers as the browser shows them; answers.js does the same."""
    if len(added) != len(whole) or any(a["version"] != w.get("version") for a, w in zip(added, whole, strict=True)):
        return [dict(item) for item in whole]
    return [
        {**more, **{name: old[name] + more[name] for name in _GROWING}} for old, more in zip(whole, added, strict=True)
    ]


def bounded(answers: Sequence[dict[str, Any]], budget: int = _HISTORY) -> list[dict[str, Any]]:
    """Earlier answers, the oldest shortened where all together are longer than the budget."""
    kept: list[dict[str, Any]] = []
    for item in reversed(answers):
        size = sum(len(item[name]) for name in _GROWING)
        if size > budget and size > 2 * _EXCERPT:
            note = f"{item['note']} Shortened here; an export has all of it.".strip()
            item = {**item, "note": note, "logprobs": [], **{name: item[name][:_EXCERPT] for name in _GROWING}}
        budget = max(0, budget - size)
        kept.append(item)
    return kept[::-1]


def shown(takes: Sequence[View], asked: int = 1) -> dict[str, Any]:
    """What the browser gets of one column: strings to show, nothing to compute with.

    takes: its answers so far, of which the last is shown, or the most frequent once all `asked` are there.
    """
    view = takes[-1]
    found = groups([take.text for take in takes if take.state is State.DONE]) if asked > 1 else ()
    if found and view.state.final and view.error is None:
        view = next(take for take in takes if take.text.strip() == found[0].text)
    notes = [note(view)]
    if asked > 1 and not view.state.final:
        notes.insert(0, f"Answer {len(takes)} of {asked}.")
    return {
        "endpoint": visible(view.endpoint.name),
        "model": visible(view.endpoint.model),
        "state": view.state.value,
        "text": visible(view.text),
        "reasoning": visible(view.reasoning),
        "facts": [list(pair) for pair in facts(view)],
        "note": " ".join(words for words in notes if words),
        "problem": {} if view.error is None else vars_of(view.error),
        "tools": [[visible(call.name), visible(call.arguments)] for call in view.tool_calls],
        "logprobs": _logprobs(view),
        "stability": sentence(found),
        "groups": [[group.count, visible(group.text[:_EXCERPT])] for group in found[:_GROUPS_SHOWN]]
        if len(found) > 1
        else [],
    }


def vars_of(error: Exception) -> dict[str, str]:
    return {name: visible(str(getattr(error, name, ""))) for name in ("what", "why", "remedy")}


def facts(view: View) -> list[tuple[str, str]]:
    metrics = view.metrics
    if metrics.ttft is None:
        return [("Waiting", seconds(view.waited))] if view.state is State.WAITING else []
    if view.state is State.WRITING:
        counted = f"{metrics.output_tokens} so far"
    else:
        counted = f"≈ {metrics.output_tokens}" if metrics.estimated else f"{metrics.output_tokens}"
    found = [
        ("First token", seconds(metrics.ttft)),
        ("Speed", rate(metrics.tokens_per_second)),
        ("Tokens", counted),
        ("Time", seconds(metrics.e2e)),
    ]
    if metrics.prompt_tokens is not None:
        found.append(("Prompt", f"{metrics.prompt_tokens} tokens"))
    return found


def note(view: View) -> str:
    """What a reader must know to read the numbers and the text rightly."""
    notes = []
    if view.state is State.CANCELLED:
        notes.append("Cancelled; this is what had come.")
    if view.state is State.DONE and view.finish_reason == "tool_calls":
        notes.append("The model asks for a tool. Nothing is run here.")
    elif view.state is State.DONE and not view.text and not view.reasoning:
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


def listed(endpoints: Sequence[Endpoint], typed: Sequence[bool]) -> list[dict[str, str]]:
    """Endpoints for a panel's list."""
    return [
        {
            "name": visible(endpoint.name),
            "model": visible(endpoint.model),
            "url": endpoint.base_url,
            "key": key_words(endpoint, own),
        }
        for endpoint, own in zip(endpoints, typed, strict=True)
    ]


def static_take(takes: Sequence[View]) -> str:
    """One column of static HTML; everything escaped."""
    view = takes[-1] if takes[-1].error is not None else takes[0]
    if view.error is not None:
        line = view.error.what
    elif view.metrics.ttft is None:
        line = view.state.value
    else:
        line = summary(view.metrics)
    name, model = view.endpoint.name, view.endpoint.model
    by = name if model == name else f"{name} · {model}"
    found = groups([take.text for take in takes if take.state is State.DONE])
    return picture.answer_column(by, view.text, " · ".join(words for words in (line, sentence(found)) if words))


def text_line(view: View) -> str:
    counted = tokens(view.metrics) if view.metrics.ttft is not None else view.state.value
    return visible(f"{view.endpoint.name} ({counted}): {view.text}")


def _characters(answers: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(item[name]) for item in answers for name in _GROWING)


def _logprobs(view: View) -> list[list[Any]]:
    """The first tokens as [token, its probability, what else it could have been], in words."""
    return [
        [
            visible(item.token),
            _percent(item.logprob),
            ", ".join(f"{one_line(token, 20) or '␣'} {_percent(value)}" for token, value in item.top[:5]),
        ]
        for item in view.logprobs[:_TOKENS_SHOWN]
    ]


def _percent(logprob: float | None) -> str:
    if logprob is None:
        return "–"
    share = math.exp(min(logprob, 0.0))
    return f"{share:.0%}" if share >= 0.01 else "< 1 %"
