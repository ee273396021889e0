"""Attention over packed rows: every conversation attends to itself only.

On a GPU in half precision one varlen kernel takes the whole row. Elsewhere the row is cut at the conversations' edges
and each runs as plain causal attention: no mask of T x T, no work on pairs that do not attend to each other. Forward
and backward of eight conversations of 110 tokens (9 heads of 64, one core): 21 ms, with a dense block mask 94 ms. On a
CPU in bfloat16 short conversations take `short_attention`.

Lengths reach the layers through transformers' keyword arguments. A model that mixes tokens outside its attention
(convolution, recurrence) cannot be packed: `packs_exactly` asks the model itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from ipytune.lora.short_attention import LONGEST, short_attention

NAME = "ipytune_packed"
PROBE = (5, 7, 3)


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the conversations of a row begin and end. An object of its own, not a tuple: compiled layers pass it on
    without looking inside, so that rows of other lengths need no other code."""

    lengths: tuple[int, ...]
    ends: Tensor  # [n + 1] int32: 0, and the end of each conversation


TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: [1, heads, T, d]; key, value: [1, kv_heads, T, d]; segments: of T tokens, one conversation if None.
    Returns [1, T, heads, d]. transformers calls it by the name under which it is registered."""
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise NotImplementedError("Packed attention knows neither soft-capped logits nor attention sinks.")
    lengths = (query.shape[2],) if segments is None else segments.lengths
    if sliding_window is not None and max(lengths) > sliding_window:
        raise NotImplementedError(
            f"A conversation of {max(lengths)} tokens is longer than the model's attention window of {sliding_window}. "
            f"Lower max_length to {sliding_window}."
        )
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype in {torch.bfloat16, torch.float16} and segments is not None and _has_varlen():
        return _varlen(query, key, value, segments.ends, max(lengths), scaling, grouped), None
    by_products = query.device.type == "cpu" and query.dtype == torch.bfloat16
    parts = zip(*(states.split(list(lengths), dim=2) for states in (query, key, value)), strict=True)
    outputs = [
        short_attention(q, k, v, scaling)
        if by_products and q.shape[2] <= LONGEST
        else F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


@functools.cache
def _has_varlen() -> bool:
    """Whether this torch's kernel takes what we give it (2.12 and later)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scaling: float | None, grouped: bool
) -> Tensor:
    """One kernel for the whole row; needs no flash-attn wheel."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))  # [T, heads, d]
    output = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    assert isinstance(output, Tensor)
    return output[None]


def register() -> str:
    """Makes packed attention known to transformers; returns its name, for `attn_implementation`. A compiled layer calls
    it as it is."""
    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    return NAME


def row_inputs(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What the backbone needs beside the tokens: positions [1, T] that restart, and where conversations end."""
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    return {"position_ids": positions, "segments": Segments(tuple(lengths), ends), "use_cache": False}


@torch.no_grad()
def packs_exactly(backbone: nn.Module, vocabulary: int, device: torch.device) -> bool:
    """Whether this model computes the same for packed conversations as for each alone: asked of a few tokens."""
    generator = torch.Generator().manual_seed(0)
    probes = [torch.randint(vocabulary, (1, length), generator=generator).to(device) for length in PROBE]
    alone = [backbone(input_ids=ids, **row_inputs([ids.shape[1]], device)).last_hidden_state for ids in probes]
    together = backbone(input_ids=torch.cat(probes, dim=1), **row_inputs(PROBE, device)).last_hidden_state
    expected = torch.cat(alone, dim=1)
    error = (together - expected).abs().max() / expected.abs().max()
    return bool(error < TOLERANCE[expected.dtype])
