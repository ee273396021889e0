"""The advice fits by the same estimate, more memory never makes it worse, and every number is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.memory.advice import ROOM, SHORTEST, Fit, Verdict, advice
from ipytune.memory.available import Available, Limit
from ipytune.memory.bar import COLOURS, bar_html, bar_text
from ipytune.memory.estimate import LABELS, Estimate, estimate

GIB = 2**30
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
QWEN_06B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
SEVERITY = [Verdict.FITS, Verdict.TIGHT, Verdict.DOES_NOT_FIT]


def run_config(**fields: Any) -> RunConfig:
    return RunConfig(train_file=Path("train.jsonl"), **fields)


def there(gpu: float = 0, host: float = 512, gpus: int = 1) -> Available:
    cards = tuple(Limit(f"GPU {number}", int(gpu * GIB)) for number in range(gpus if gpu else 0))
    return Available((Limit("free memory of the machine", int(host * GIB)),), cards)


def on_gpu(config: RunConfig, model: Any = LLAMA_8B, **more: Any) -> Estimate:
    return estimate(config, model, device="cuda", dtype="bfloat16", **more)


def test_what_fits_needs_no_advice() -> None:
    fit = advice(on_gpu(run_config()), there(gpu=96))
    assert fit.verdict is Verdict.FITS and fit.remedy is None
    assert fit.words().startswith("Fits: about ")


def test_smaller_rows_come_first_and_no_smaller_than_needed() -> None:
    wanted = on_gpu(run_config(row_tokens=16384, max_length=2048, batch_size=32))
    fit = advice(wanted, there(gpu=40))
    assert fit.verdict is Verdict.DOES_NOT_FIT and fit.remedy is not None
    assert list(fit.remedy.settings) == ["row_tokens"]
    rows = fit.remedy.settings["row_tokens"]
    assert isinstance(rows, int) and 2048 <= rows < 16384
    larger = on_gpu(run_config(row_tokens=rows + 64, max_length=2048, batch_size=32))
    assert advice(larger, there(gpu=40)).verdict is not Verdict.FITS


def test_checkpointing_alone_when_rows_are_as_short_as_they_can_be() -> None:
    fit = advice(on_gpu(run_config(row_tokens=4096, max_length=4096)), there(gpu=28))
    assert fit.remedy is not None and fit.remedy.settings == {"gradient_checkpointing": "always"}


def test_four_bits_when_the_weights_are_too_large() -> None:
    fit = advice(on_gpu(run_config()), there(gpu=16))
    assert fit.remedy is not None and fit.remedy.settings["quantise"] == "nf4"


def test_more_gpus_when_nothing_else_helps() -> None:
    config = run_config(lora=LoraSettings(init="pissa"))
    alone, together = (advice(on_gpu(config), there(gpu=14, gpus=count)) for count in (1, 4))
    assert alone.remedy is not None and alone.remedy.changes == ()
    assert alone.remedy.ask[0] == ("GPU", round(ROOM * on_gpu(config).total))
    assert together.remedy is not None and together.remedy.settings["parallel"] == "fsdp"
    assert {change.setting: change.now for change in together.remedy.changes}["GPUs"] in {2, 3, 4}


def test_host_memory_counts_on_a_gpu_too() -> None:
    fit = advice(on_gpu(run_config()), there(gpu=96, host=8))
    assert fit.needs[0].kind == "host" and "of host memory needed" in fit.words()


def test_a_session_without_a_gpu_is_told() -> None:
    with pytest.raises(ValueError, match="this session shows 0"):
        advice(on_gpu(run_config()), there())


plans = st.builds(
    dict,
    model=st.sampled_from([LLAMA_8B, QWEN_06B]),
    device=st.sampled_from(["cpu", "cuda"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    max_length=st.sampled_from([64, 256, 1000, 4096]),
    factor=st.integers(1, 8),
    longest=st.integers(16, 4096),
    checkpointing=st.sampled_from(["auto", "always"]),
    quantise=st.sampled_from(["none", "nf4"]),
)


def estimated(plan: dict[str, Any]) -> Estimate:
    config = run_config(
        max_length=plan["max_length"],
        row_tokens=plan["max_length"] * plan["factor"],
        gradient_checkpointing=plan["checkpointing"],
        quantise=plan["quantise"] if plan["device"] == "cuda" else "none",
    )
    return estimate(config, plan["model"], plan["longest"], plan["device"], plan["dtype"])


@settings(max_examples=40, deadline=None)
@given(plan=plans, memory=st.floats(0.3, 120), more=st.floats(0, 60), gpus=st.integers(1, 4))
def test_more_memory_is_never_worse_and_the_remedy_fits(
    plan: dict[str, Any], memory: float, more: float, gpus: int
) -> None:
    wanted = estimated(plan)
    before, after = (advice(wanted, there(size, size * 4, gpus)) for size in (memory, memory + more))
    assert SEVERITY.index(after.verdict) <= SEVERITY.index(before.verdict)
    assert (before.remedy is None) == (before.verdict is Verdict.FITS)
    if before.remedy is not None and before.remedy.changes:
        again = advice(before.remedy.estimate, there(memory, memory * 4, gpus))
        assert again.verdict is Verdict.FITS
        assert after.remedy is None or after.remedy.changes  # what helped with less, or better, helps with more
        config = before.remedy.estimate.plan.config
        assert config.row_tokens >= config.max_length >= min(SHORTEST, plan["max_length"])
        RunConfig.model_validate(config.model_dump())  # a configuration that can be run
    elif before.remedy is not None:
        asked = dict(before.remedy.ask)
        larger = there(
            max(memory, asked.get("GPU", 0) / GIB + 0.01), max(4 * memory, asked.get("host", 0) / GIB + 0.01)
        )
        assert advice(wanted, larger).verdict is Verdict.FITS


def tight() -> Fit:
    return advice(on_gpu(run_config()), Available(there(host=9).host, (Limit("GPU <0> & co", 20 * GIB),)))


def test_the_bar_shows_every_part_and_escapes_names() -> None:
    assert set(COLOURS) == set(LABELS)
    picture = bar_html(tight(), measured=19 * GIB)
    assert all(label in picture for label in LABELS.values())
    assert "probe: 19.0 GiB" in picture and "free: 20.0 GiB" in picture
    assert "<0>" not in picture and "<script" not in picture


def test_the_text_has_the_same_numbers() -> None:
    text = bar_text(tight(), measured=19 * GIB)
    assert all(label in text for label in LABELS.values())
    assert "19.0 GiB  measured in one step" in text and "GPU <0> & co" in text
    assert max(map(len, text.splitlines()[: len(LABELS)])) <= 80
