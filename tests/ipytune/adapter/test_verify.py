"""The proof says alike of what is alike up to rounding, and names what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ipytune import models
from ipytune.adapter import verify as proving
from ipytune.adapter.gguf import gguf
from ipytune.adapter.merge import merge
from ipytune.adapter.proof import TOLERANCES, Reading, compare
from ipytune.adapter.source import AdapterError
from ipytune.adapter.verify import verify
from tests.ipytune.adapter import tiny
from tests.ipytune.evaluate.test_bundled_model import bundled

QUESTIONS = ("two nodes", "the sea is wide")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "ANSWER_TOKENS", 8)


def test_merged_and_gguf_answer_as_the_adapter_does(adapter: Path, merged: Path, tmp_path: Path) -> None:
    file = gguf(merged, tmp_path / "model.gguf", "f32")
    proof = verify(adapter, merged, file, QUESTIONS, out=tmp_path / "proof.json")
    assert proof.passed, str(proof)
    assert [form.form for form in proof.forms] == ["merged", "gguf"]
    assert all(form.same_answers == 2 and form.kept is not None and form.kept > 0.999 for form in proof.forms)
    written = json.loads((tmp_path / "proof.json").read_text())
    assert written["passed"] is True and written["forms"][0]["dtype"] == "float32"
    assert "merged (float32): alike" in str(proof)


def test_rounding_is_told_and_allowed(adapter: Path, tmp_path: Path) -> None:
    merged = merge(adapter, tmp_path / "merged", dtype="bfloat16")
    proof = verify(adapter, merged, gguf(merged, tmp_path / "m.gguf", "q8_0"), QUESTIONS)
    assert proof.passed, str(proof)
    assert 1e-4 < proof.forms[0].logit_difference_relative < TOLERANCES["bfloat16"].logits
    assert proof.forms[1].dtype == "q8_0"
    assert (merged / "proof.json").is_file()


def test_a_model_without_the_adapter_is_not_alike(llama: Path, adapter: Path, tmp_path: Path) -> None:
    proof = verify(adapter, llama, questions=QUESTIONS, out=tmp_path / "proof.json")
    assert not proof.passed
    assert "NOT ALIKE" in str(proof) and "the adapter is not in there" in str(proof)


def test_another_template_or_stop_token_is_named(adapter: Path, merged: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(merged, changed)
    words = tiny.tokenizer("llama-bpe")
    words.chat_template, words.eos_token = "{{ messages }}", "<|endoftext|>"
    words.save_pretrained(changed)
    proof = verify(adapter, changed, gguf(changed, tmp_path / "m.gguf", "f32"), QUESTIONS)
    for form in proof.forms:
        assert any("template" in finding for finding in form.findings)
        assert any("stop token" in finding or "eos_token_id" in finding for finding in form.findings)


def test_a_run_is_asked_what_it_was_trained_for(llama: Path, tmp_path: Path) -> None:
    run = tiny.save_run(tmp_path / "run", llama)
    proof = verify(run, merge(run, tmp_path / "merged"))
    assert proof.passed and proof.questions == len(set(tiny.TEXTS))
    assert proof.perplexity > 5  # of answers that the tiny model never learned, not of its own


def test_what_is_missing_is_named(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="Nothing to compare"):
        verify(adapter)
    with pytest.raises(AdapterError, match="There is no"):
        verify(adapter, tmp_path / "absent")
    (tmp_path / "no.gguf").write_bytes(b"no such thing" * 10)
    with pytest.raises(AdapterError, match="is no GGUF file"):
        proving.read_metadata(tmp_path / "no.gguf")


@settings(max_examples=20)
@given(st.floats(0.5, 3))
def test_an_answer_may_change_only_at_a_tie(margin: float) -> None:
    """Two best tokens, `margin` apart, on a spread of about one; the other model prefers the second."""
    reference = torch.linspace(-1.7, 1.7, 50).repeat(1, 1)
    reference[0, 7], reference[0, 3] = 5.0, 5.0 - margin
    other = reference.clone()
    other[0, 3] = 5.0 + 1e-3
    found = compare(Reading(other, 2.0), Reading(reference, 2.0), [[7]], 1.0, "float32")
    assert found["same_answers"] == found["answers_changed_at_a_tie"] == 0
    assert any("differ where there was no tie" in finding for finding in found["findings"])
    same = compare(Reading(reference, 2.0), Reading(reference, 2.0), [[7]], 1.0, "float32")
    assert same["same_answers"] == 1 and not same["findings"] and same["kept"] == 1.0


def test_numbers_that_are_none_do_not_pass() -> None:
    reference = torch.randn(3, 20)
    broken = reference.clone()
    broken[1, 2] = float("nan")
    answer = reference.argmax(-1).tolist()
    found = compare(Reading(broken, float("nan")), Reading(reference, 2.0), [answer], 1.0, "bfloat16")
    assert len(found["findings"]) >= 2


@bundled
def test_the_bundled_model_all_the_way(tmp_path: Path) -> None:
    """SmolLM2-135M with an adapter on one layer: merged in its own bfloat16, then GGUF, its weights bit by bit."""
    base = Path(models.resolve(models.SMOLLM2))
    adapter = tiny.save_adapter(base, tmp_path / "adapter", target_modules=["down_proj"], layers_to_transform=[3])
    merged = merge(adapter, tmp_path / "merged")
    file = gguf(merged, tmp_path / "smol.gguf", "bf16")
    reader = GGUFReader(file)
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    written = {tensor.name: tensor for tensor in reader.tensors}
    assert "output.weight" not in written  # tied to the embedding
    found = torch.from_numpy(np.array(written["blk.3.ffn_down.weight"].data)).view(torch.bfloat16)
    with safe_open(merged / "model.safetensors", "pt") as opened, safe_open(base / "model.safetensors", "pt") as before:
        name = "model.layers.3.mlp.down_proj.weight"
        assert torch.equal(found, opened.get_tensor(name)) and not torch.equal(found, before.get_tensor(name))
        untouched = "model.layers.4.mlp.down_proj.weight"
        assert torch.equal(opened.get_tensor(untouched), before.get_tensor(untouched))
