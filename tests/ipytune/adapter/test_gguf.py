"""transformers reads the written file back as the same model, and its metadata says what the model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ipytune.adapter.gguf import gguf, permuted
from ipytune.adapter.source import AdapterError
from ipytune.adapter.verify import _model, read_metadata
from ipytune.adapter.vocabulary import BYTE, CONTROL, UNUSED, pre_tokenizer_name, read_vocabulary
from tests.ipytune.adapter import tiny
from tests.ipytune.lora import tiny as words

IDS = torch.arange(3, 40).unsqueeze(0)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=IDS).logits
    return result


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"tie_word_embeddings": True, "head_dim": 32}),
        ("llama", {"attention_bias": True}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
    ],
    ids=["tied", "biases", "mistral", "qwen2", "qwen3"],
)
def test_the_weights_come_back(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    model = tiny.save_model(tmp_path / "model", kind, **options)
    file = gguf(model, tmp_path / "model.gguf", "f32")
    with _model(model) as ours, _model(model, file) as theirs:
        torch.testing.assert_close(logits(theirs), logits(ours), atol=1e-5, rtol=1e-5)
    architecture = "llama" if kind == "mistral" else kind
    metadata = read_metadata(file)
    assert metadata["general.architecture"] == architecture
    assert ("output.weight" in metadata["tensors"]) == (not options.get("tie_word_embeddings"))


def test_the_file_alone_is_a_model(merged: Path, tmp_path: Path) -> None:
    """Without our configuration beside it: what another program reads."""
    file = gguf(merged, tmp_path / "alone" / "model.gguf", "f32")
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(theirs), logits(ours), atol=1e-4, rtol=1e-4)
    mine, read = AutoTokenizer.from_pretrained(merged), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = mine.apply_chat_template([{"role": "user", "content": "4 GPUs, 12 hours!\n"}], tokenize=False)
    assert read(text)["input_ids"] == mine(text)["input_ids"]
    assert (read.chat_template, read.eos_token_id) == (mine.chat_template, mine.eos_token_id)


@pytest.mark.parametrize(("kind", "types"), [("f16", {"F16"}), ("bf16", {"BF16"}), ("q8_0", {"Q8_0"})])
def test_matrices_have_the_type_asked_for_and_vectors_float32(
    merged: Path, tmp_path: Path, kind: Any, types: set[str]
) -> None:
    file = gguf(merged, tmp_path / "model.gguf", kind)
    tensors = GGUFReader(file).tensors
    assert {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1} == types
    assert {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) == 1} == {"F32"}
    if kind == "q8_0":  # the coarsest; what rounding does to answers is `verify`'s
        with _model(merged) as ours, _model(merged, file) as theirs:
            assert (logits(theirs) - logits(ours)).abs().max() < 0.5 * logits(ours).std()


def test_a_row_that_no_block_divides_stays_half_precision(tmp_path: Path) -> None:
    model = tiny.save_model(tmp_path / "model", hidden_size=64, intermediate_size=72)
    tensors = {t.name: t.tensor_type.name for t in GGUFReader(gguf(model, tmp_path / "m.gguf", "q8_0")).tensors}
    assert (tensors["blk.0.ffn_down.weight"], tensors["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_the_tokenizer_is_told_whole(merged: Path, tmp_path: Path) -> None:
    metadata = read_metadata(gguf(merged, tmp_path / "model.gguf", "f16"))
    tokenizer = AutoTokenizer.from_pretrained(merged)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    rows = AutoConfig.from_pretrained(merged).vocab_size
    assert len(tokens) == len(types) == rows > len(tokenizer)
    assert all(tokens[index] == token for token, index in tokenizer.get_vocab().items())
    assert types[tokenizer.eos_token_id] == CONTROL and types[-1] == UNUSED and tokens[-1] == f"[PAD{rows - 1}]"
    merges = json.loads((merged / "tokenizer.json").read_text())["model"]["merges"]
    assert metadata["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]
    assert metadata["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert metadata["tokenizer.ggml.eot_token_id"] == 0  # the other end in generation_config.json
    assert metadata["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert metadata["tokenizer.chat_template"] == tiny.TEMPLATE


def test_llama_3_slows_each_frequency_by_its_own_factor(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    model = tiny.save_model(tmp_path / "model", rope_parameters=rope, head_dim=32)
    file = gguf(model, tmp_path / "model.gguf", "f32")
    factors = {t.name: t.data for t in GGUFReader(file).tensors}["rope_freqs.weight"]
    assert factors.shape == (16,) and factors[0] == pytest.approx(1.0) and factors[-1] == pytest.approx(8.0)
    assert read_metadata(file)["llama.rope.freq_base"] == 500000.0


def test_yarn_and_linear_scaling_are_told_and_others_refused(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 128}
    file = gguf(tiny.save_model(tmp_path / "yarn", "qwen3", rope_parameters=yarn), tmp_path / "yarn.gguf", "f32")
    metadata = read_metadata(file)
    assert metadata["qwen3.rope.scaling.type"] == "yarn" and metadata["qwen3.rope.scaling.factor"] == 4.0
    assert metadata["qwen3.rope.scaling.original_context_length"] == 128
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(AdapterError, match="rope scaling is dynamic"):
        gguf(tiny.save_model(tmp_path / "dynamic", rope_parameters=dynamic), tmp_path / "d.gguf")
    assert not list(tmp_path.glob("*d.gguf*"))


def test_a_sliding_window_limits_the_context(tmp_path: Path) -> None:
    model = tiny.save_model(tmp_path / "model", "mistral", sliding_window=128)
    assert read_metadata(gguf(model, tmp_path / "model.gguf"))["llama.context_length"] == 128


def test_an_architecture_that_is_not_known_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(AdapterError, match="this one is gpt2.*convert_hf_to_gguf.py"):
        gguf(tmp_path, tmp_path / "m.gguf")


def test_a_tokenizer_that_gguf_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="WordLevel, and only BPE"):
        gguf(words.save(tmp_path / "words"), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_values_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    model = tiny.save_model(tmp_path / "model")
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][0, 0] = 1e6
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="f16 cannot.*Use bf16"):
        gguf(model, tmp_path / "m.gguf", "f16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe", "smollm", "gpt-2"])
def test_a_pre_tokenizer_is_known_by_what_it_does(pre: str) -> None:
    assert pre_tokenizer_name(json.loads(tiny.tokenizer(pre).backend_tokenizer.to_str())) == pre


def test_an_unknown_pre_tokenizer_is_refused() -> None:
    described = json.loads(tiny.tokenizer("qwen2").backend_tokenizer.to_str())
    described["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    with pytest.raises(AdapterError, match="no name in GGUF is known"):
        pre_tokenizer_name(described)
    described = json.loads(tiny.tokenizer("llama-bpe").backend_tokenizer.to_str())
    described["model"]["ignore_merges"] = False
    with pytest.raises(AdapterError, match="splits text as llama-bpe, but merges whole words"):
        pre_tokenizer_name(described)


def test_sentencepiece_by_its_merges(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abc", "ab", "▁ab", "▁abc"]
    merges = [("a", "b"), ("▁", "ab"), ("▁ab", "c")]
    backend = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    found = read_vocabulary(tmp_path, len(tokens))
    assert (found.model, found.pre, found.merges, found.add_space) == ("llama", "default", (), True)
    assert found.types[3] == BYTE
    by_score = sorted(["ab", "▁ab", "▁abc"], key=lambda token: -found.scores[found.tokens.index(token)])
    assert by_score == ["ab", "▁ab", "▁abc"]


def test_turning_the_heads_is_undone_by_its_inverse() -> None:
    weight = torch.randn(4 * 8, 5)
    turned = permuted(weight, 4)
    assert not torch.equal(turned, weight)
    back = turned.reshape(4, 4, 2, 5).transpose(1, 2).reshape(weight.shape)
    assert torch.equal(back, weight)
