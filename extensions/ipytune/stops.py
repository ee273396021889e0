"""Where an answer ends: the tokens at which generation stops, for all of us who generate.

A model's generation_config may name several (Llama 3 does), or another than the tokenizer's eos_token (Gemma does). An
answer ends at whichever comes first: a tuned model has learned the one that its chat template writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """All ids in the model's generation_config.eos_token_id, and tokenizer.eos_token_id; empty where none is named."""
    named = listed(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
    return list(dict.fromkeys([*named, *listed(tokenizer.eos_token_id)]))


def listed(ends: object) -> list[int]:
    """`eos_token_id` of any configuration, which may be an id, a list of them or nothing.

    >>> listed(2), listed([2, 7]), listed(None)
    ([2], [2, 7], [])
    """
    candidates = ends if isinstance(ends, (list, tuple)) else [ends]
    return [end for end in candidates if isinstance(end, int)]


def before_stop(ids: Sequence[int], stops: Collection[int]) -> list[int]:
    """The tokens of an answer: what stands before the first stop token.

    >>> before_stop([5, 6, 2, 0, 0], [2]), before_stop([5, 6], [2])
    ([5, 6], [5, 6])
    """
    return list(takewhile(lambda token: token not in stops, ids))
