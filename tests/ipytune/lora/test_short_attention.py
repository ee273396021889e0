"""Attention by matrix products is attention: values and gradients, for shared and own keys, and no look ahead."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipytune.lora import attention
from ipytune.lora.attention import packed_attention
from ipytune.lora.short_attention import LONGEST, short_attention


def states(heads: int, kv_heads: int, length: int, width: int) -> list[torch.Tensor]:
    """query, key, value, as a model gives them: [1, T, heads, d], seen transposed."""
    random = torch.Generator().manual_seed(0)
    made = (torch.randn(1, length, count, width, generator=random) for count in (heads, kv_heads, kv_heads))
    return [each.to(torch.bfloat16).transpose(1, 2).requires_grad_() for each in made]


@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (4, 4), (8, 1)])
@pytest.mark.parametrize("length", [1, 2, 33, 130])
def test_values_and_gradients_are_those_of_the_kernel(heads: int, kv_heads: int, length: int) -> None:
    given = states(heads, kv_heads, length, 16)
    upstream = torch.linspace(-1, 1, heads * length * 16).view(1, heads, length, 16)
    exact = [each.detach().float().requires_grad_() for each in given]
    expected = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    expected.backward(upstream)
    found = short_attention(*given, None)
    found.backward(upstream.to(found.dtype))
    assert found.dtype == torch.bfloat16
    for ours, theirs in [(found, expected), *((a.grad, b.grad) for a, b in zip(given, exact, strict=True))]:
        assert ours is not None and theirs is not None
        assert (ours.float() - theirs).norm() <= 0.02 * theirs.norm() + 1e-6


def test_nobody_looks_ahead() -> None:
    query, key, value = (each.detach() for each in states(4, 2, 40, 16))
    before = short_attention(query, key, value, None)
    key[:, :, 25:], value[:, :, 25:] = 9, -9
    assert torch.equal(short_attention(query, key, value, None)[:, :, :25], before[:, :, :25])


def test_a_row_of_short_and_long_conversations_is_the_same_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LONGEST", 20)
    lengths = (20, 30, 7)
    query, key, value = states(4, 2, sum(lengths), 16)
    segments = attention.row_inputs(lengths, torch.device("cpu"))["segments"]
    together, _ = packed_attention(torch.nn.Module(), query, key, value, None, segments=segments)
    parts = zip(*(each.split(list(lengths), dim=2) for each in (query, key, value)), strict=True)
    alone = [packed_attention(torch.nn.Module(), *part, None)[0] for part in parts]
    assert (together - torch.cat(alone, dim=1)).abs().max() < 0.02
    assert LONGEST > 20
