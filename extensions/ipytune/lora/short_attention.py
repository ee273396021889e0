"""Causal attention of one short conversation as plain matrix products, for CPUs that multiply bfloat16 in matrix units.

torch's CPU kernel is written for long sequences: it multiplies small blocks. A conversation of some hundred tokens has
so few scores that they can be held whole, and then all the work is in five large products. Forward and backward of 220
tokens, two cores with AMX: 9 heads of 64, 7.3 ms by the kernel in float32, here 4.0; 16 heads of 128, 18 and 8.5.
Scores are rounded to bfloat16 before the softmax, as in transformers' own `eager` attention.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

LONGEST = 512  # tokens; beyond it the kernel's bfloat16 is as fast, and does not hold the scores


def short_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """query: [1, heads, L, d]; key, value: [1, kv_heads, L, d]; all bfloat16, on a CPU. Returns [1, heads, L, d]."""
    y: Tensor = _ShortAttention.apply(query[0], key[0], value[0], query.shape[-1] ** -0.5 if scale is None else scale)
    return y[None]


class _ShortAttention(torch.autograd.Function):
    """Heads that share keys and values are rows of one product: [kv_heads, heads / kv_heads * L, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        heads, length, width = query.shape
        groups = key.shape[0]
        scaled = (query * scale).reshape(groups, -1, width)
        scores = torch.bmm(scaled, key.mT).view(heads, length, length)
        weights = torch.softmax(scores.add_(_future(length, scores.dtype)), dim=-1)
        ctx.save_for_backward(scaled, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights.view(groups, -1, length), value).view(heads, length, width)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled, key, value, weights = ctx.saved_tensors
        groups, length, width = key.shape
        upstream, weights = upstream.reshape(groups, -1, width), weights.view(groups, -1, length)
        d_value = torch.bmm(weights.mT, upstream)
        d_weights = torch.bmm(upstream, value.mT)
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_query = torch.bmm(d_scores, key).mul_(ctx.scale).view(-1, length, width)
        return d_query, torch.bmm(d_scores.mT, scaled), d_value, None


@lru_cache(maxsize=LONGEST)
def _future(length: int, dtype: torch.dtype) -> Tensor:
    """0 where a token may look, minus infinity where it must not: [L, L]."""
    return torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
