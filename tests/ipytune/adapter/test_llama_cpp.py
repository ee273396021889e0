"""llama.cpp itself reads what was written: same tokens, same template, same greedy answer. Needs the package xllamacpp,
a build of llama.cpp with its server in the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from ipytune.adapter.gguf import gguf
from ipytune.adapter.verify import _model, greedy
from tests.ipytune.adapter import tiny

QUESTION = [{"role": "user", "content": "4 GPUs, 12 hours\n\n for café?"}]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_it_answers_as_transformers_does(tmp_path: Path, kind: str) -> None:
    llama_cpp: Any = pytest.importorskip("xllamacpp")
    model = tiny.save_model(tmp_path / "model", kind)
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text)["input_ids"]
    with _model(model) as ours:
        expected = greedy(ours, ids, 8, ())

    options = llama_cpp.CommonParams()
    options.model.path = str(gguf(model, tmp_path / "model.gguf", "f32"))
    options.n_ctx, options.n_parallel, options.warmup = 512, 1, False
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    server = llama_cpp.Server(options)
    with httpx.Client(base_url=server.listening_address, timeout=60, trust_env=False) as http:

        def ask(route: str, **body: Any) -> Any:
            return http.post(route, json=body).json()

        assert ask("/apply-template", messages=QUESTION)["prompt"] == text
        assert ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"] == ids
        settings = {"n_predict": 8, "temperature": 0, "top_k": 1, "ignore_eos": False, "return_tokens": True}
        found = ask("/completion", prompt=ids, cache_prompt=False, **settings)["tokens"]
    stop = expected.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in expected else len(expected)
    assert [token for token in found if token != tokenizer.eos_token_id] == expected[:stop]
