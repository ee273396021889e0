"""A comparison taken away: as data for JSON, and written to files that never replace another.

While names are hidden they are hidden here too: the file would be opened beside the panel. Keys are nowhere: an
endpoint's record holds the name of what holds its key.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipytune.compare import ballot
from ipytune.compare.dialogue import Round
from ipytune.compare.stability import groups
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.exchange import View

if TYPE_CHECKING:
    from ipytune.compare.comparison import Comparison

FORMAT = "ipytune-comparison/1"
_MOST_NAMES = 10_000


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Everything that may be known by now, of types that JSON has. Times in seconds."""
    return {
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "endpoints": [endpoint.model_dump(mode="json", exclude_none=True) for endpoint in comparison.endpoints],
        "blind": comparison.blind,
        "rounds": [_round(comparison, item) for item in comparison.rounds],
        "tally": _tally(comparison.tally()),
    }


def as_json(comparison: Comparison) -> str:
    return json.dumps(as_data(comparison), indent=1, ensure_ascii=False, default=str) + "\n"


def write(path: Path | str, text: str) -> Path:
    """Write `text` to a new file: to `path`, or where that is taken to name-2, name-3 ...; the path written.

    Raises BadRequest where the directory is not there or cannot be written to.
    """
    wanted = Path(path).expanduser()
    for number in range(1, _MOST_NAMES):
        tried = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        try:
            # "x": made by this call or not at all, so that two at once never share a file.
            with tried.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return tried
        except FileExistsError:
            continue
        except OSError as error:
            raise BadRequest(
                f"{wanted} cannot be written.", f"{error.strerror or error}.", "Choose another directory or name."
            ) from None
    raise BadRequest(f"{wanted} cannot be written.", "All names beside it are taken.", "Choose another name.")


def _round(comparison: Comparison, item: Round) -> dict[str, Any]:
    sitting = comparison.sitting(item)
    names = comparison.names(item)
    return {
        "number": item.number,
        "prompt": item.prompt,
        "begins_conversation": item.fresh,
        "system": item.terms.system,
        "options": dict(item.terms.options),
        "names_hidden": not sitting.revealed,
        "columns": [
            {
                "name": name,
                "endpoint": place if sitting.revealed else None,
                "takes": [_take(take) for take in takes],
                "groups": [{"count": group.count, "takes": list(group.takes)} for group in groups(_texts(takes))],
            }
            for name, place, takes in zip(names, sitting.order, comparison.seen(item), strict=True)
        ],
        "vote": _vote(comparison, item),
    }


def _take(view: View) -> dict[str, Any]:
    error = view.error
    return {
        "state": view.state.value,
        "text": view.text,
        "reasoning": view.reasoning,
        "finish_reason": view.finish_reason,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in view.tool_calls],
        "logprobs": [
            {"token": item.token, "logprob": item.logprob, "top": [list(pair) for pair in item.top]}
            for item in view.logprobs
        ],
        "metrics": view.metrics.as_dict(),
        "error": None if error is None else {"what": error.what, "why": error.why, "remedy": error.remedy},
    }


def _texts(takes: tuple[View, ...]) -> list[str]:
    return [take.text for take in takes]


def _vote(comparison: Comparison, item: Round) -> dict[str, Any] | None:
    vote = comparison.vote_of(item)
    if vote is None:
        return None
    chosen = comparison.endpoints[vote.choice].name if isinstance(vote.choice, int) else vote.choice
    return {"best": chosen, "endpoint": vote.choice if isinstance(vote.choice, int) else None, "blind": vote.blind}


def _tally(found: ballot.Tally) -> dict[str, Any]:
    return {
        "standings": [vars(standing) for standing in found.standings],
        "decided": found.decided,
        "ties": found.ties,
        "bad": found.bad,
        "not_counted": found.seen,
        "p_value": found.p_value,
        "words": ballot.sentences(found),
    }
