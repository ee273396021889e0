"""Several processes as one run: each takes a share of every step, and their gradients are summed.

- Who is one of how many is read from torchrun's environment; alone, everything here does nothing.
- The adapter is small, so its gradients travel as one flat buffer after the backward of all rows: no wrapper, and the
  loss is divided by the learned tokens of the whole step, whoever has them. N processes equal one up to rounding.
- The frozen base may be sharded over the processes (FSDP2), layer by layer. Then all must run the same number of
  passes, since each pass gathers weights: who has fewer rows repeats one, with weight zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ipytune.lora.config import RunConfig
from ipytune.memory.available import Dtype
from ipytune.memory.estimate import estimate
from ipytune.memory.shape import UnknownShape, read_shape

WHOLE = 0.7  # of a GPU's memory, that the base may take of it while each has a whole one

Item = TypeVar("Item")


class Group:
    """The processes of one run. A context manager: joins on entry, leaves on exit."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the run directory."""
        return self.rank == 0

    def __enter__(self) -> Group:
        if self.size > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(self.local_rank)
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(self, *error: object) -> None:
        if self.size > 1 and error[0] is None:  # after an error others may be gone: leaving would wait for them
            dist.destroy_process_group()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over the processes, in one exchange. All have the same dtype and device."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def agreed(self, here: Any) -> Any:
        """The value of the first process, in all."""
        if self.size == 1:
            return here
        box = [here]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def first_that(self, reason: str | None) -> str | None:
        """A reason that any process has, the same in all; None when none has one."""
        if self.size == 1:
            return reason
        reasons: list[str | None] = [None] * self.size
        dist.all_gather_object(reasons, reason)
        return next((found for found in reasons if found is not None), None)


def shares(items: Sequence[Item], sizes: Sequence[int], processes: int) -> list[list[Item]]:
    """Items for each process, their sizes summing up as evenly as largest-first makes them. Pure."""
    loads, given = [0] * processes, [[] for _ in range(processes)]  # type: list[int], list[list[Item]]
    for index in sorted(range(len(items)), key=lambda i: (-sizes[i], i)):
        least = min(range(processes), key=lambda p: (loads[p], len(given[p])))
        given[least].append(items[index])
        loads[least] += sizes[index]
    return given


def shards(config: RunConfig, processes: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the base is sharded: when that is asked for, or with `auto` on GPUs none of which can hold it."""
    if config.parallel != "auto" or device.type != "cuda" or config.quantise != "none":
        return config.parallel == "fsdp"
    try:
        name: Dtype = "bfloat16" if dtype == torch.bfloat16 else "float32"
        base = estimate(config, read_shape(config.model), None, "cuda", name, processes=processes).of("weights")
    except UnknownShape:
        return False
    return needs_shards(base, torch.cuda.mem_get_info(device)[1])


def needs_shards(base: int, gpu: int) -> bool:
    """Of a base and a GPU of so many bytes: beside the base there must be room for a step. Pure."""
    return base > WHOLE * gpu


def shard(layers: Iterable[nn.Module], trainable: Sequence[nn.Parameter], device: torch.device) -> None:
    """Shards each layer's frozen weights over the processes (FSDP2); the adapter stays whole in each."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        # sharded after each forward: for the memory, and so that all agree on it (to save shards, on one process)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=set(trainable))
