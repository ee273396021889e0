"""What the model says while it learns: greedy answers to the questions of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ipytune.data.template import ChatTokenizer, prompt_ids
from ipytune.lora.attention import NAME
from ipytune.lora.model import Trainable
from ipytune.stops import before_stop, stop_ids


@torch.no_grad()
def answers(model: Trainable, tokenizer: ChatTokenizer, prompts: Sequence[str], tokens: int) -> list[str]:
    """One greedy answer of up to `tokens` tokens for each prompt. Uses no random numbers, so a run learns the same with
    and without samples."""
    peft: Any = model.peft
    base: Any = peft.get_base_model()
    peft.eval()
    base.set_attn_implementation("sdpa")  # ours knows no cache
    try:
        stops = stop_ids(base, tokenizer)
        return [_answer(peft, tokenizer, prompt, tokens, stops, model.device) for prompt in prompts]
    finally:
        base.set_attn_implementation(NAME)
        peft.train()


def _answer(peft: Any, tokenizer: Any, prompt: str, tokens: int, stops: Sequence[int], device: torch.device) -> str:
    ids = torch.tensor([prompt_ids(tokenizer, [{"role": "user", "content": prompt}])], device=device)
    generated = peft.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(stops) or None,
        pad_token_id=next(iter(stops), 0),  # of one sequence nothing is padded; without it, a warning a sample
    )
    said = before_stop(generated[0, ids.shape[1] :].tolist(), stops)
    return str(tokenizer.decode(said, skip_special_tokens=True)).strip()
