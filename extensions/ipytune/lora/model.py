"""The model to train: a frozen base, its adapter, and what the loop needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from ipytune.data.pack import Row
from ipytune.lora import attention, linear, norm, pissa
from ipytune.lora.config import ConfigError, RunConfig
from ipytune.lora.loss import summed_loss


@dataclass(frozen=True)
class Trainable:
    """A PEFT model, and the parts of its base that a training step calls: backbone, then head on few positions."""

    peft: PeftModel
    backbone: nn.Module
    layers: Sequence[nn.Module]
    """The decoder layers: what is recomputed, compiled or sharded, one at a time."""
    head: Tensor  # [V, H], frozen
    device: torch.device
    packs: bool
    """Whether conversations may share a row; see `attention.packs_exactly`."""
    start: dict[str, Tensor] | None = None
    """PiSSA's first adapter, which the base was reduced by; see `pissa`."""

    @property
    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.peft.named_parameters() if parameter.requires_grad]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters]

    def loss(self, row: Row) -> Tensor:
        """Sum of the cross entropies of the row's learned tokens, in nats; float32 scalar."""
        ids = torch.tensor([row.ids], device=self.device)  # [1, T]
        at = torch.tensor(row.predictions, device=self.device)  # [N]
        hidden = self.backbone(input_ids=ids, **attention.row_inputs(row.lengths, self.device)).last_hidden_state[0]
        return summed_loss(hidden[at], self.head, ids[0, at + 1])

    def on(self, device: torch.device) -> Trainable:
        """Moves what is not sharded to where the shards are."""
        for module in (self.peft, *self.peft.modules()):
            for parameter in module._parameters.values():
                if parameter is not None and type(parameter.data) is Tensor:
                    parameter.data = parameter.data.to(device)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(device)
        head: Any = self.peft.get_base_model()
        return replace(self, head=head.get_output_embeddings().weight, device=device)

    def recompute(self, which: str) -> None:
        """Which layers recompute their activations in the backward: none, half (every other one) or all."""
        every = {"none": 0, "half": 2, "all": 1}[which]
        for number, layer in enumerate(self.layers):
            wanted: Any = layer
            wanted.gradient_checkpointing = bool(every) and number % every == 0
            wanted._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def compile(self, backend: str = "inductor") -> None:
        """Each decoder layer by itself: compiled once, since all are alike, and in seconds instead of minutes."""
        for layer in self.layers:
            layer.compile(dynamic=True, backend=backend)

    def save(self, directory: Path) -> None:
        """The adapter in PEFT's format, as the trainer needs it to go on."""
        self.peft.save_pretrained(str(directory))

    def save_result(self, directory: Path) -> None:
        """The adapter in PEFT's format, as it fits the base that everybody has."""
        self.save(directory)
        if self.start is not None:
            pissa.make_plain(directory, self.start)

    def load(self, directory: Path) -> None:
        set_peft_model_state_dict(self.peft, load_file(directory / "adapter_model.safetensors"))


def load_base(source: Path | str, dtype: torch.dtype, device: torch.device, quantise: str = "none") -> Any:
    """The base model, in eval mode, with attention that knows packed rows. quantise="nf4": in 4 bits (QLoRA).

    Raises ConfigError where 4 bits are wanted and cannot be had.
    """
    implementation = attention.register()
    if quantise == "none":
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation=implementation)
        return model.to(device)
    return AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        attn_implementation=implementation,
        quantization_config=_four_bits(dtype, device),
        device_map={"": device},
    )


def with_adapter(base: Any, config: RunConfig, name: str, start: dict[str, Tensor] | None = None) -> Trainable:
    """Adds a fresh adapter (which changes nothing yet, so that training starts from the base) in float32, whatever the
    base's dtype. `start`: PiSSA's first adapter of a run that goes on.

    Raises ConfigError for a model whose head does more than one matrix product, or a target that it does not have.
    """
    settings = config.lora
    head = base.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or _transformed_logits(base.config):
        raise ConfigError(
            f"model: {type(base).__name__} changes its logits after the head (bias, cap or scale), which this trainer "
            f"does not compute. Choose a model of the Llama, Qwen, Mistral or SmolLM family."
        )
    base.requires_grad_(False)
    torch.manual_seed(config.seed)
    fresh_pissa = settings.init == "pissa" and start is None
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights="pissa_niter_16" if fresh_pissa else True,
        target_modules=settings.targets if isinstance(settings.targets, str) else list(settings.targets),
        task_type="CAUSAL_LM",
    )
    try:
        peft = get_peft_model(base, lora)
    except ValueError as error:
        if "target modules" not in str(error).lower():
            raise
        names = sorted(
            {part.rpartition(".")[2] for part, module in base.named_modules() if isinstance(module, nn.Linear)}
        )
        raise ConfigError(
            f"lora.targets: the model has no layer of these names: {settings.targets}. It has: {', '.join(names)}."
        ) from error
    assert isinstance(peft, PeftModel)
    peft.peft_config["default"].base_model_name_or_path = name
    peft.peft_config["default"].init_lora_weights = True  # whoever loads the adapter has its weights
    if settings.init == "pissa":
        start = pissa.first_adapter(peft) if start is None else pissa.reduce_base(peft, start)
    linear.fuse(peft)
    norm.fuse(peft)
    peft.train()  # from_pretrained leaves it in eval mode, where dropout does nothing
    backbone, device = base.base_model, head.weight.device
    backbone.eval()
    packs = attention.packs_exactly(backbone, head.weight.shape[0], device)
    peft.train()
    return Trainable(peft, backbone, list(backbone.layers), head.weight, device, packs, start)


def _four_bits(dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "quantise: nf4 needs bitsandbytes, which is not installed. pip install bitsandbytes, or leave quantise out."
        ) from error
    if device.type != "cuda":
        raise ConfigError("quantise: nf4 needs a GPU, and this session has none. Leave quantise out on a CPU.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _transformed_logits(config: Any) -> bool:
    scale = getattr(config, "logits_scaling", None) or getattr(config, "logit_scale", None)
    return getattr(config, "final_logit_softcapping", None) is not None or scale not in (None, 1, 1.0)
