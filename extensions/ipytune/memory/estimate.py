"""What a run needs, in bytes by part, from configuration and model shape alone: nothing is loaded, no torch.

The terms follow our own loop (`lora.linear`, `lora.attention`, `lora.loss`) and transformers' decoder layers: what each
operation keeps for the backward. Letters in the formulas:

    T  tokens of a row    h  hidden size    q, k  width of queries, of keys (= values)    f  MLP width    L  layers
    V  vocabulary    r  rank    P  adapter parameters    e  bytes of an element of the base: 4 float32, 2 bfloat16
    a  bytes of an attention operand: e on a GPU, 4 on a CPU, where `lora.attention` computes in float32
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ipytune.lora.config import RunConfig
from ipytune.memory.shape import Linear, ModelShape, shape_of

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]

BYTES = {"float32": 4, "bfloat16": 2}
LOGITS_PER_CHUNK = {"cpu": 2**24, "cuda": 2**27}  # as in lora.loss, which imports torch; a test compares them
SHORT = 512  # tokens of a conversation: LONGEST of lora.short_attention, likewise
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's 8-bit scale, and that scale's own (double quantised)
CUDA_CONTEXT = 1_400_000_000  # context, kernels, cuBLAS workspace: Unsloth's figure, not measured by us
CUDA_HOST = 2_500_000_000  # resident set of a process that uses a GPU: an estimate, not measured here
# Resident set beside tensors, of a process with torch 2.13, transformers 5.23, PEFT 0.21 and a tokenizer of 49,000
# words, measured after loading and after a step: 395 to 410 MiB.
CPU_FRAMEWORK = 400 * 2**20
# What allocators hold beyond the tensors, for freed blocks do not fit again exactly. GPU: an estimate, of what comes
# and goes. CPU (glibc): fitted to runs of SmolLM2-135M and a Qwen3 of 0.6B at 256 to 2,048 tokens, with and without
# recomputation: a part of what is kept, and as much as this many layers keep, whether it is kept or not.
OVERHEAD = {"cpu": 0.28, "cuda": 0.10}
HELD_LAYERS = 12
LABELS = {
    "weights": "weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "activations": "activations",
    "working": "head and backward",
    "framework": "framework",
    "overhead": "allocator",
}


@dataclass(frozen=True)
class Part:
    """One share of the whole; `key` is one of LABELS."""

    key: str
    bytes: int

    @property
    def label(self) -> str:
        return LABELS[self.key]


@dataclass(frozen=True)
class Plan:
    """All that the estimate depends on."""

    config: RunConfig
    shape: ModelShape
    device: Device
    dtype: Dtype
    longest: int
    """Tokens of the longest conversation; at most config.max_length."""
    learned: float = 1.0
    """Part of a row's tokens that counts in the loss: only those reach the head."""
    processes: int = 1
    """On one node; on GPUs one each."""

    @property
    def element(self) -> int:
        return BYTES[self.dtype]

    @property
    def longest_kept(self) -> int:
        return min(self.longest, self.config.max_length)

    @property
    def row(self) -> int:
        """Tokens of the longest row: a step's conversations fill it, up to row_tokens, in equal shares."""
        share = math.ceil(self.config.batch_size * self.longest_kept / self.processes)
        return min(self.config.row_tokens, max(self.longest_kept, share))

    @property
    def sharded(self) -> bool:
        return self.config.parallel == "fsdp" and self.processes > 1

    @property
    def recomputes(self) -> bool:
        return self.config.gradient_checkpointing == "always"

    @property
    def fused(self) -> bool:
        """Whether the adapter runs through `lora.linear`; dropout, DoRA and 4-bit layers keep PEFT's own forward."""
        return not (self.config.lora.dropout or self.config.lora.dora or self.config.quantise != "none")

    def changed(self, **fields: Any) -> Plan:
        """The same plan with other settings of its configuration."""
        return replace(self, config=self.config.model_copy(update=fields))


@dataclass(frozen=True)
class Estimate:
    """Bytes of one process on its device (the GPU, or the host when there is none), by part."""

    plan: Plan
    parts: tuple[Part, ...]
    host: int
    """Host memory of all processes together."""
    loading: int
    """Host memory of one process while it loads, pages of the weight files included: the system takes those back when
    memory is short, but they count in a peak resident set. Weights that keep their dtype are those pages."""

    @property
    def total(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def tensors(self) -> int:
        """What torch.cuda.max_memory_allocated counts: all but context and what the allocator holds back."""
        return sum(part.bytes for part in self.parts if part.key not in {"framework", "overhead"})

    @property
    def peak(self) -> int:
        """To compare with a measurement: max_memory_allocated of a GPU, the peak resident set of a process on a CPU."""
        return self.tensors if self.plan.device == "cuda" else max(self.total, self.loading)

    def of(self, key: str) -> int:
        return next(part.bytes for part in self.parts if part.key == key)

    def as_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "peak": self.peak,
            "host": self.host,
            "parts": {part.key: part.bytes for part in self.parts},
        }


def estimate(
    config: RunConfig,
    model: ModelShape | Mapping[str, Any],
    longest: int | None = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    learned: float = 1.0,
    processes: int = 1,
) -> Estimate:
    """What the run that `config` describes needs.

    model: its shape, or the content of its config.json; longest: tokens of the longest conversation (None: max_length);
    learned: part of the tokens that counts in the loss (1: the worst); processes: on this node. Raises UnknownShape for
    a model of an unknown family, ValueError for a number that cannot be.
    """
    longest = config.max_length if longest is None else longest
    if longest < 1 or not 0 <= learned <= 1 or processes < 1:
        raise ValueError(
            f"longest ({longest}) and processes ({processes}) must be at least 1, learned ({learned}) between 0 and 1. "
            f"Leave longest and learned out to estimate the worst case."
        )
    shape = model if isinstance(model, ModelShape) else shape_of(model)
    return estimate_of(Plan(config, shape, device, dtype, longest, learned, processes))


def estimate_of(plan: Plan) -> Estimate:
    parameters = plan.shape.adapter_parameters(plan.config.lora.rank, plan.config.lora.targets, plan.config.lora.dora)
    sizes = {
        "weights": weights(plan),
        "adapter": 4 * parameters,
        "gradients": 4 * parameters * (1 if plan.processes == 1 else 2),  # Group.sum copies them into one buffer
        "optimiser": 8 * parameters,
        "activations": activations(plan),
        "working": max(head(plan), backward(plan)),
        "framework": CPU_FRAMEWORK if plan.device == "cpu" else CUDA_CONTEXT,
    }
    sizes["overhead"] = overhead(plan, sizes["activations"], sizes["working"])
    parts = tuple(Part(key, int(size)) for key, size in sizes.items())
    total = sum(part.bytes for part in parts)
    loaded = plan.shape.parameters * plan.element
    as_stored = round(plan.shape.file_bytes / plan.shape.parameters) == plan.element
    loading = CPU_FRAMEWORK + loaded + (0 if as_stored else plan.shape.file_bytes)
    if plan.device == "cpu":
        host = total
    else:  # loaded on the host, then moved; 4-bit weights go to the GPU one by one
        host = CUDA_HOST + (0 if plan.config.quantise == "nf4" else loaded)
    return Estimate(plan, parts, plan.processes * host, int(loading))


def overhead(plan: Plan, kept: float, working: float) -> float:
    """What the allocator holds beside the tensors (see OVERHEAD)."""
    share = OVERHEAD[plan.device]
    if plan.device == "cuda":
        return share * (kept + working)
    return share * kept + min(HELD_LAYERS, plan.shape.layers) * plan.row * kept_by_layer(plan)


def weights(plan: Plan) -> float:
    """Embedding, final norm and head e (V h + h + V h, or one V h when they are one), and L layers.

    A layer takes e a parameter; with nf4 its linear weights take 0.516 bytes. Sharded over n processes (FSDP2), each
    holds 1/n of all layers and two whole ones (the one that computes and the one that is fetched); embedding and head
    stay whole (`lora.parallel.shard`).
    """
    shape, e = plan.shape, plan.element
    ends = e * (shape.parameters - shape.layers * shape.layer_parameters)
    linear = NF4_BYTES if plan.config.quantise == "nf4" else e
    layer = shape.linear_parameters * linear + shape.other_parameters * e
    if plan.sharded:
        return ends + layer * (shape.layers / plan.processes + min(2, shape.layers))
    return ends + layer * shape.layers


def activations(plan: Plan) -> float:
    """What is kept from the forward to the backward: T (L layer + rope + final norm).

    With recomputation a layer keeps its input only, T h e (torch.utils.checkpoint, not reentrant). Rope: cosine and
    sine, 2 d e, shared by all layers. Final norm: its input and its output, h (n + e).
    """
    shape, e = plan.shape, plan.element
    layer = shape.hidden * e if plan.recomputes else kept_by_layer(plan)
    return plan.row * (shape.layers * layer + 2 * shape.head_dim * e + shape.hidden * (_norm_element(plan) + e))


def kept_by_layer(plan: Plan) -> float:
    """Bytes a token that one decoder layer keeps for its backward.

    Two norms           2 (n h + 4)        the input and 1/rms; n: 4 on a GPU (a float32 copy), e on a CPU
    Norms of the heads  n (q + k)          where there are any: the projections (plus 4 a head)
    Attention           see `_kept_by_attention`
    MLP                 3 f e              gate, its activation, up (their product is kept by the layer that reads it)
    xIELU               f (3 e + 1)        instead, for Apertus: x, alpha x, expm1 and a mask (plain torch version)
    Inputs of adapters  e inputs           once for all that read the same; see `_kept_by_adapters`
    """
    shape, e = plan.shape, plan.element
    n = _norm_element(plan)
    norms = 2 * (n * shape.hidden + 4)
    head_norms = n * (shape.queries + shape.keys) + 4 * (shape.heads + shape.kv_heads) if shape.head_norms else 0
    mlp = shape.ffn * (3 * e + 1) if shape.family == "apertus" else shape.ffn * 3 * e
    return norms + head_norms + _kept_by_attention(plan) + mlp + _kept_by_adapters(plan)


def _norm_element(plan: Plan) -> int:
    return plan.element if plan.device == "cpu" else 4


def _kept_by_attention(plan: Plan) -> float:
    """Bytes a token of one layer: the kernel keeps rotated q and k, v, and o, e (2 q + 2 k), with 4 a head for the
    log-sum-exp. `lora.short_attention` keeps no o but the weights, e a head for each token of the conversation, here
    of the longest."""
    shape, e = plan.shape, plan.element
    if plan.device == "cpu" and plan.dtype == "bfloat16" and plan.longest_kept <= SHORT:
        return e * (shape.queries + 2 * shape.keys + shape.heads * plan.longest_kept)
    return e * (2 * shape.queries + 2 * shape.keys) + 4 * shape.heads


def _kept_by_adapters(plan: Plan) -> float:
    """Bytes a token of one layer: `_LoraProduct` keeps its input (shared by q, k, v, and by gate, up; the attention's
    output is kept anyway on a GPU, where it is no copy) and the rank-r product.

    PEFT's own forward keeps float32, for each target by itself: the input where it had to be cast (else the shared
    one), with dropout the dropped input and a mask instead (on a CPU float32 too), the rank-r product; DoRA also the
    base's and the adapter's result.
    """
    e, lora = plan.element, plan.config.lora
    targets = plan.shape.targets(lora.targets)
    inputs = {target.reads: target.inputs for target in targets}
    if plan.device == "cuda":
        inputs.pop("heads", None)
    shared = e * sum(inputs.values())
    if plan.fused:
        return shared + sum(e * lora.rank for _ in targets)

    def own(target: Linear) -> float:
        if lora.dropout:
            read = (8 if plan.device == "cpu" else 5) * target.inputs
        else:
            read = 4 * target.inputs if e != 4 else 0
        return read + 4 * lora.rank + ((e + 4) * target.outputs if lora.dora else 0)

    return (shared if e == 4 and not lora.dropout else 0) + sum(own(target) for target in targets)


def head(plan: Plan) -> float:
    """Of N learned tokens, the hidden states and their gradient, 2 N h e; of a chunk of n tokens, the logits in the
    base's dtype and, where that is another, in float32, (e + 4) n V, where n V is at most LOGITS_PER_CHUNK
    (`lora.loss`)."""
    shape = plan.shape
    learned = math.ceil(plan.learned * plan.row)
    most = max(1, LOGITS_PER_CHUNK[plan.device] // shape.vocabulary)
    logit = plan.element + (4 if plan.element != 4 else 0)
    return 2 * learned * shape.hidden * plan.element + logit * min(learned, most) * shape.vocabulary


def backward(plan: Plan) -> float:
    """The moment after the head, in the last layer's backward: gradients of the MLP's halves, 2 f e, of the residual
    and inside a norm, 4 times 4 h, beside what is kept; with recomputation also that one layer's activations.

    4-bit weights are unpacked for each product: the largest layer's, e in out.
    """
    shape, e = plan.shape, plan.element
    layer = kept_by_layer(plan) if plan.recomputes else 0
    unpacked = max(t.inputs * t.outputs for t in shape.linears) * e if plan.config.quantise == "nf4" else 0
    return plan.row * (layer + 2 * shape.ffn * e + 16 * shape.hidden) + unpacked
