"""The faster norm is the norm: values and gradients, and it leaves alone what it does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from ipytune.lora import norm

SHAPES = [(7, 64), (1, 5, 4, 32)]
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7}


def made(width: int, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    layer = Qwen3RMSNorm(width, eps=1e-6).to(dtype)
    layer.weight.data.uniform_(0.5, 2)
    return layer.requires_grad_(False)


def with_gradient(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y))
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_values_and_gradients_are_those_of_the_model(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = made(shape[-1], dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = x.clone()
    expected = with_gradient(layer, x)
    assert norm.fuse(nn.ModuleList([layer])) == 1
    for ours, theirs in zip(with_gradient(layer, x), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= ROUNDING[dtype] * theirs.abs().max()
    assert torch.equal(x, before)


def test_the_gradient_is_the_derivative() -> None:
    layer = made(8, torch.float32)
    layer.double()  # after the choice of its kind, for numerical differences
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)

    def ours(x: torch.Tensor) -> torch.Tensor:
        return norm._RmsNorm.apply(x, layer.weight, 1e-6).double()

    assert torch.autograd.gradcheck(ours, (x,), eps=1e-3, atol=1e-2, rtol=1e-2)  # r is float32


def test_a_norm_that_trains_or_computes_otherwise_keeps_its_own_forward() -> None:
    trained = Qwen3RMSNorm(16)
    gemma = GemmaRMSNorm(16).requires_grad_(False)  # scales by 1 + weight
    gemma.weight.data.uniform_(0.5, 2)
    gemma.variance_epsilon = gemma.eps

    class OddRMSNorm(nn.LayerNorm):
        variance_epsilon = 1e-6

    odd = OddRMSNorm(16).requires_grad_(False)
    assert norm.fuse(nn.ModuleList([trained, gemma, odd])) == 0
