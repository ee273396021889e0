"""Greedy answers to many questions at once, from a base model or from a base model with an adapter.

Questions are sorted by length and padded on the left, so that little is padding and all answers of a batch end where
the batch ends; a batch stops when its last answer has reached a stop token (`ipytune.stops`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ipytune import models
from ipytune.data.template import prompt_ids
from ipytune.lora.hardware import choose_device, choose_dtype
from ipytune.lora.quiet import quiet_libraries
from ipytune.processor import usable_cpus
from ipytune.stops import before_stop, stop_ids


@dataclass(frozen=True)
class Generator:
    """A model ready to answer."""

    model: Any
    tokenizer: Any
    name: str

    @classmethod
    def load(cls, model: str, adapter: Path | str | None = None) -> Generator:
        """Loads a model, and merges the adapter into it (answers take a third less time than beside it).

        Raises ModelNotFound, and FileNotFoundError for a directory without adapter.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
            raise FileNotFoundError(
                f"{adapter} holds no adapter (no adapter_config.json). Wait until the run has completed or was stopped."
            )
        quiet_libraries()
        torch.set_num_threads(usable_cpus())
        device = choose_device("auto")
        source = models.resolve(model)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=choose_dtype("auto", device))
        loaded = loaded.to(device)
        if adapter is not None:
            loaded = _merged(loaded, Path(adapter))
        return cls(
            loaded.eval(), AutoTokenizer.from_pretrained(source), model if adapter is None else f"{model}+adapter"
        )

    def answers(
        self,
        questions: Sequence[Sequence[dict[str, str]]],
        max_new_tokens: int = 128,
        batch_size: int = 32,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """One greedy answer a question, in the order of the questions; on_progress gets the number answered so far."""
        prompts = [prompt_ids(self.tokenizer, question) for question in questions]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for i, answer in zip(chosen, self._batch([prompts[i] for i in chosen], max_new_tokens), strict=True):
                answers[i] = answer
            if on_progress is not None:
                on_progress(start + len(chosen))
        return answers

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        longest, device = max(map(len, prompts)), self.model.device
        stops = stop_ids(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else next(iter(stops), 0)
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        out = self.model.generate(
            input_ids=ids,
            attention_mask=seen,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stops or None,
            pad_token_id=pad,
        )
        given = [before_stop(ids, stops) for ids in out[:, longest:].tolist()]
        return list(self.tokenizer.batch_decode(given, skip_special_tokens=True))


def _merged(model: Any, adapter: Path) -> Any:
    """Merges in float32 and rounds once: the sum of a bfloat16 weight and a small update must not be lost before."""
    from peft import PeftModel

    dtype = model.dtype
    return PeftModel.from_pretrained(model.float(), str(adapter)).merge_and_unload().to(dtype)
