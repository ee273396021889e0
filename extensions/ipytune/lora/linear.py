"""A frozen linear layer with its low-rank adapter, in as few passes over memory as plain torch allows.

PEFT computes base(x) + scaling * B(A(x)) and casts and scales at full width. Here the scale goes to the rank-r
product, the adapter's output is accumulated into the base's by the matrix product itself, and the backward does the
same for the gradient of x. The adapter stays float32 and is cast, not the activations.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

ADAPTER = "default"


def fuse(model: nn.Module) -> int:
    """Gives every plain LoRA layer of a PEFT model the faster forward; returns how many there were.

    Layers with dropout, DoRA or a bias of the adapter keep PEFT's own. The result is the same up to rounding.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLinear) and _plain(layer)]
    for layer in layers:
        layer.forward = _Forward(layer)  # type: ignore[method-assign]
    return len(layers)


def _plain(layer: LoraLinear) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and layer.active_adapters == [ADAPTER]
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        and not layer.use_dora[ADAPTER]
        and layer.lora_A[ADAPTER].bias is None
        and layer.lora_B[ADAPTER].bias is None
    )


class _Forward:
    """Replaces a layer's forward; looks the weights up at each call, so that loading and moving them keeps working."""

    def __init__(self, layer: LoraLinear) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        base, scale = self._layer.base_layer, self._layer.scaling[ADAPTER]
        a, b = self._layer.lora_A[ADAPTER].weight, self._layer.lora_B[ADAPTER].weight
        y: Tensor = _LoraProduct.apply(x, base.weight, base.bias, a, b, scale)
        return y


class _LoraProduct(torch.autograd.Function):
    """y = x W^T + bias + scale * x A^T B^T.

    x: [..., in]   W: [out, in], frozen   A: [r, in]   B: [out, r]   y: [..., out], in W's dtype
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [T, in]
        a_cast, b_cast = a.to(weight.dtype), b.to(weight.dtype)
        low = (rows @ a_cast.T).mul_(scale)  # [T, r]
        y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        y.addmm_(low, b_cast.T)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scale = scale
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, low = ctx.saved_tensors
        dy = upstream.reshape(-1, upstream.shape[-1])  # [T, out]
        d_low = (dy @ b.to(dy.dtype)).mul_(ctx.scale)  # [T, r]
        d_a = (d_low.T @ rows).to(a.dtype)  # [r, in]
        d_b = (dy.T @ low).to(b.dtype)  # [out, r]; low holds the scale already
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight).addmm_(d_low, a.to(dy.dtype)).view(*upstream.shape[:-1], -1)
        return dx, None, None, d_a, d_b, None
