"""Cross entropy through a frozen head, over the learned tokens only.

Two matrix products and no recomputation: the gradient with respect to the hidden states is computed in the forward,
chunk by chunk, so that at most chunk x vocabulary logits exist at a time. Positions that are not learned never reach
the head, which in small models with big vocabularies is a quarter to a half of all work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOGITS_PER_CHUNK = {"cpu": 2**24, "cuda": 2**27}  # float32: 64 MiB stays near a CPU's caches, 512 MiB fills a GPU


def summed_loss(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropies in nats, float32 scalar; divide it by the learned tokens of the whole step.

    hidden: [N, H], of the positions that predict a learned token
    head: [V, H], frozen; it receives no gradient
    targets: [N], the learned tokens
    """
    chunk = max(1, LOGITS_PER_CHUNK.get(hidden.device.type, 2**24) // head.shape[0])
    loss: Tensor = _FrozenHeadLoss.apply(hidden, head, targets, chunk)
    return loss


class _FrozenHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # One pair of buffers for all chunks: pieces of many sizes, made and freed, would leave holes in a CPU's heap.
        held = hidden.new_empty((min(chunk, hidden.shape[0]), head.shape[0]))
        wide = held if held.dtype == torch.float32 else held.new_empty(held.shape, dtype=torch.float32)
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            wanted = targets[part, None]  # [n, 1]
            product = held[: len(wanted)]
            torch.mm(hidden[part], head.T, out=product)  # logits: [n, V]
            share = wide[: len(wanted)].copy_(product)
            highest = share.amax(dim=-1, keepdim=True)  # [n, 1]
            share -= highest
            given = share.gather(1, wanted)
            total = share.exp_().sum(dim=-1, keepdim=True)
            loss += (total.log() - given).sum()
            if gradient is not None:
                share /= total  # softmax
                share.scatter_add_(1, wanted, share.new_full(wanted.shape, -1.0))
                torch.mm(product.copy_(share), head, out=gradient[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None
