"""Learned are the answers and their stop tokens, and nothing else."""

from __future__ import annotations

import pytest

from ipytune.data.pack import batch, pack, row_of
from ipytune.data.template import TemplateError, Tokens, prompt_ids, render
from tests.ipytune.lora import tiny

SYSTEM = {"role": "system", "content": "w9"}
QUESTION = {"role": "user", "content": "w1 w2"}
ANSWER = {"role": "assistant", "content": "w3 w4"}
AGAIN = {"role": "user", "content": "w3 w4"}
LAST = {"role": "assistant", "content": "w5"}


def learned_words(tokens: Tokens) -> list[str]:
    return [tiny.WORDS[token] for token, learned in zip(tokens.ids, tokens.learned, strict=True) if learned]


def test_one_answer_with_its_stop_token_is_learned() -> None:
    tokens = render(tiny.tokenizer(), [SYSTEM, QUESTION, ANSWER])
    assert [tiny.WORDS[token] for token in tokens.ids] == (
        [
            "<start>",
            "system",
            "w9",
            "<end>",
            "<start>",
            "user",
            "w1",
            "w2",
            "<end>",
            "<start>",
            "assistant",
            "w3",
            "w4",
            "<end>",
        ]
    )
    assert learned_words(tokens) == ["w3", "w4", "<end>"]
    assert tokens.learned == (False,) * 11 + (True,) * 3


def test_every_answer_is_learned_and_an_equal_question_is_not() -> None:
    tokens = render(tiny.tokenizer(), [QUESTION, ANSWER, AGAIN, LAST])
    assert learned_words(tokens) == ["w3", "w4", "<end>", "w5", "<end>"]


def test_the_prompt_at_generation_is_the_prompt_in_training() -> None:
    tokenizer = tiny.tokenizer()
    tokens = render(tokenizer, [QUESTION, ANSWER])
    assert list(tokens.ids[: tokens.learned.index(True)]) == prompt_ids(tokenizer, [QUESTION])


def test_what_follows_the_stop_token_is_not_learned() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("<end> ", "<end> w49 ")
    assert learned_words(render(tokenizer, [QUESTION, ANSWER])) == ["w3", "w4", "<end>"]


def test_a_token_across_an_edge_is_split_as_at_generation() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (  # no space after the role: "assistant:w3" is one word of the whole text
        "{% for message in messages %}<start> {{ message['role'] }}:{{ message['content'] }} <end> "
        "{% endfor %}{% if add_generation_prompt %}<start> assistant:{% endif %}"
    )
    tokens = render(tokenizer, [QUESTION, ANSWER])
    assert learned_words(tokens) == ["w3", "w4", "<end>"]


def test_a_template_without_stop_token_is_refused() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("<end> ", "")
    with pytest.raises(TemplateError, match="would not know how to end"):
        render(tokenizer, [QUESTION, ANSWER])


def test_of_answers_that_the_template_rewrites_only_the_last_is_learned() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace(
        "message['content']", "(message['content'] if loop.last or message['role'] == 'user' else 'w0')"
    )
    assert learned_words(render(tokenizer, [QUESTION, ANSWER, AGAIN, LAST])) == ["w5", "<end>"]


def test_a_template_that_rewrites_the_last_answer_is_refused() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE.replace("<start> assistant {% endif %}", "<start> assistant w0 {% endif %}")
    with pytest.raises(TemplateError, match="differently from what follows its generation prompt"):
        render(tokenizer, [QUESTION, ANSWER])


def test_a_base_model_without_template_is_refused() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(TemplateError, match="instruct version"):
        render(tokenizer, [QUESTION, ANSWER])


def tokens_of(length: int, learned_from: int = 1) -> Tokens:
    return Tokens(tuple(range(length)), tuple(i >= learned_from for i in range(length)))


def test_rows_hold_every_conversation_once_and_keep_their_limit() -> None:
    lengths = [7, 3, 5, 5, 2, 8, 1]
    rows = pack([tokens_of(length) for length in lengths], row_tokens=10)
    assert sorted(length for row in rows for length in row.lengths) == sorted(lengths)
    assert all(len(row.ids) == sum(row.lengths) <= 10 for row in rows)
    assert len(rows) == 4


def test_a_conversation_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="raise row_tokens"):
        pack([tokens_of(11)], row_tokens=10)


def test_positions_restart_and_no_prediction_crosses_conversations() -> None:
    row = row_of([tokens_of(3), tokens_of(4, learned_from=0)])
    assert row.positions == (0, 1, 2, 0, 1, 2, 3)
    assert row.predictions == [0, 1, 3, 4, 5]  # not 2: the first token of the second conversation follows nothing


def test_each_pass_holds_every_conversation_once_in_another_order() -> None:
    stream = [i for step in range(10) for i in batch(step, size=10, batch_size=3, seed=1)]
    assert sorted(stream[:10]) == sorted(stream[10:20]) == sorted(stream[20:30]) == list(range(10))
    assert stream[:10] != stream[10:20]
    assert batch(2, 10, 3, seed=1) != batch(2, 10, 3, seed=2)


def test_a_batch_larger_than_the_data_repeats_it() -> None:
    assert sorted(batch(0, size=3, batch_size=6, seed=0)) == [0, 0, 1, 1, 2, 2]
