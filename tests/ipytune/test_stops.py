"""An answer ends at whatever the model's generation_config or its tokenizer names, whoever generates it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.adapter.verify import greedy
from ipytune.data.template import prompt_ids
from ipytune.evaluate.generate import Generator
from ipytune.lora import attention, samples
from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.lora.model import with_adapter
from ipytune.stops import before_stop, stop_ids
from tests.ipytune.lora import tiny

TOKENS = 6
NEVER_SAID = 0  # <unk>
END = tiny.tokenizer().eos_token_id


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def in_full(model: Any, question: str) -> list[int]:
    """What the model says when nothing stops it."""
    return greedy(model, prompt_ids(tiny.tokenizer(), asked(question)), TOKENS, ())


def talkative(model: Any) -> tuple[str, list[int], int]:
    """A question whose answer goes from one word to another; the answer; and the word at which to stop it."""
    for number in range(50):
        said = in_full(model, f"w{number} w{49 - number}")
        if said[-1] != said[0] and not {END, NEVER_SAID} & set(said):
            return f"w{number} w{49 - number}", said, said[-1]
    raise AssertionError("the tiny model says one word only")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    ("model", "tokenizer", "ids"),
    [(2, 2, [2]), ([2, 7], 2, [2, 7]), ([7], 2, [7, 2]), (None, 2, [2]), (2, None, [2]), (None, None, [])],
)
def test_all_that_either_names(model: Any, tokenizer: Any, ids: list[int]) -> None:
    named = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=model))
    assert stop_ids(named, SimpleNamespace(eos_token_id=tokenizer)) == ids


@given(st.lists(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_an_answer_is_what_stands_before_the_first_stop(ids: list[int], stops: set[int]) -> None:
    answer = before_stop(ids, stops)
    assert answer == ids[: len(answer)] and not stops & set(answer)
    assert len(answer) == len(ids) or ids[len(answer)] in stops


@pytest.mark.parametrize("where", ["one of the model's", "the model's only one", "the tokenizer's"])
def test_evaluation_stops_at_each_of_them(base: Path, where: str) -> None:
    generator = Generator.load(str(base))
    question, said, stop = talkative(generator.model)
    expected = generator.tokenizer.decode(said[: said.index(stop)])
    config = generator.model.generation_config
    of_the_model = {
        "one of the model's": [NEVER_SAID, stop],
        "the model's only one": stop,
        "the tokenizer's": NEVER_SAID,
    }
    config.eos_token_id = of_the_model[where]
    if where == "the tokenizer's":
        generator.tokenizer.eos_token = tiny.WORDS[stop]
    assert generator.answers([asked(question), asked("w1")], TOKENS)[0] == expected


def test_samples_stop_at_each_of_them() -> None:
    model = tiny.model()
    question, said, stop = talkative(model)
    model.set_attn_implementation(attention.register())
    model.generation_config.eos_token_id = [NEVER_SAID, stop]  # type: ignore[union-attr]
    config = RunConfig(train_file=Path("train.jsonl"), lora=LoraSettings(rank=4))
    tokenizer: Any = tiny.tokenizer()
    (answer,) = samples.answers(with_adapter(model, config, "tiny"), tokenizer, [question], TOKENS)
    assert answer == tokenizer.decode(said[: said.index(stop)])


def test_a_proof_asks_up_to_each_of_them() -> None:
    model = tiny.model()
    question, said, stop = talkative(model)
    prompt = prompt_ids(tiny.tokenizer(), asked(question))
    assert greedy(model, prompt, TOKENS, [NEVER_SAID, stop]) == said[: said.index(stop) + 1]
