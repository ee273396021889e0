"""The model to train: a frozen base, its adapter, and what the loop needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ipytune.data.pack import Row
from ipytune.lora import attention, linear
from ipytune.lora.config import LoraSettings
from ipytune.lora.loss import summed_loss


@dataclass(frozen=True)
class Trainable:
    """A PEFT model, and the two parts of its base that a training step calls: backbone, then head on few positions."""

    peft: PeftModel
    backbone: nn.Module
    head: Tensor  # [V, H], frozen
    device: torch.device
    packs: bool
    """Whether conversations may share a row; see `attention.packs_exactly`."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.peft.parameters() if parameter.requires_grad]

    def loss(self, row: Row) -> Tensor:
        """Sum of the cross entropies of the row's learned tokens, in nats; float32 scalar."""
        ids = torch.tensor([row.ids], device=self.device)  # [1, T]
        at = torch.tensor(row.predictions, device=self.device)  # [N]
        hidden = self.backbone(input_ids=ids, **attention.row_inputs(row.lengths, self.device)).last_hidden_state[0]
        return summed_loss(hidden[at], self.head, ids[0, at + 1])

    def save(self, directory: Path) -> None:
        """The adapter in PEFT's format."""
        self.peft.save_pretrained(str(directory))

    def load(self, directory: Path) -> None:
        set_peft_model_state_dict(self.peft, load_file(directory / "adapter_model.safetensors"))


def load_tokenizer(source: Path | str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    return tokenizer


def load_base(source: Path | str, dtype: torch.dtype, device: torch.device) -> Any:
    """The base model, in eval mode, with attention that knows packed rows."""
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation=attention.register())
    return model.to(device)


def with_adapter(base: Any, settings: LoraSettings, seed: int, name: str) -> Trainable:
    """Adds a fresh adapter (B = 0, so that training starts from the base) in float32, whatever the base's dtype.

    Raises ValueError for a model whose head does more than one matrix product.
    """
    head = base.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or _transformed_logits(base.config):
        raise ValueError(
            f"{type(base).__name__} changes its logits after the head (bias, cap or scale), which this trainer does "
            f"not compute. Choose a model of the Llama, Qwen, Mistral or SmolLM family."
        )
    base.requires_grad_(False)
    torch.manual_seed(seed)
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    peft = get_peft_model(
        base,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    )
    assert isinstance(peft, PeftModel)
    peft.peft_config["default"].base_model_name_or_path = name
    linear.fuse(peft)
    peft.train()  # from_pretrained leaves it in eval mode, where dropout does nothing
    backbone, device = base.base_model, head.weight.device
    backbone.eval()
    packs = attention.packs_exactly(backbone, head.weight.shape[0], device)
    peft.train()
    return Trainable(peft, backbone, head.weight, device, packs)


def _transformed_logits(config: Any) -> bool:
    scale = getattr(config, "logits_scaling", None) or getattr(config, "logit_scale", None)
    return getattr(config, "final_logit_softcapping", None) is not None or scale not in (None, 1, 1.0)
