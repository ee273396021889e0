"""What a tokenizer makes of the data is counted and judged before any model loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ipytune.data.findings import DatasetError
from ipytune.data.preview import preview
from ipytune.data.report import Report, inspect
from ipytune.data.rows import save_rows
from ipytune.data.template import render
from ipytune.data.validate import load
from ipytune.lora.config import DataSettings, RunConfig
from tests.ipytune.data.bytes_tokenizer import tokenizer
from tests.ipytune.lora import tiny

SHORT = {"prompt": "w1 w2", "completion": "w3"}  # 9 tokens, 2 of them learned
LONG = {"prompt": "w4", "completion": " ".join(["w5"] * 20)}
ENDLESS = {"prompt": " ".join(["w6"] * 30), "completion": "w7"}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def made(*rows: dict[str, Any], vocab_size: int | None = 56, fast: Any = None, **settings: Any) -> Report:
        data = {name: settings.pop(name) for name in list(settings) if name in DataSettings.model_fields}
        config = RunConfig(
            train_file=save_rows(rows, tmp_path / "train.jsonl"),
            data=DataSettings(**data),
            **{"model": "m", **settings},
        )
        return inspect(load(config), fast or tiny.tokenizer(), config, vocab_size)

    return made


def test_tokens_are_counted(make: Any) -> None:
    report = make(SHORT, LONG)
    assert report.findings == ()
    assert (report.examples, report.held_out_examples) == (2, 0)
    tokens = [
        render(
            tiny.tokenizer(),
            [{"role": "user", "content": one["prompt"]}, {"role": "assistant", "content": one["completion"]}],
        )
        for one in (SHORT, LONG)
    ]
    assert list(report.train) == tokens
    assert report.tokens == sum(map(len, tokens))
    assert (report.learned_tokens, report.longest) == (2 + 21, len(tokens[1]))
    assert "2 conversations to train on" in str(report)


def test_a_conversation_over_max_length_is_an_error_each(make: Any) -> None:
    report = make(LONG, SHORT, ENDLESS, max_length=16)
    assert [(finding.line, finding.what) for finding in report.errors] == [
        (1, "27 tokens, over max_length 16"),
        (3, "37 tokens, over max_length 16"),
    ]
    with pytest.raises(DatasetError, match=r"train.jsonl:1: 27 tokens, over max_length 16. Raise max_length"):
        report.checked()


def test_truncation_says_how_much_and_drops_what_has_nothing_left(make: Any) -> None:
    report = make(LONG, SHORT, ENDLESS, max_length=16, too_long="truncate").checked()
    assert (report.examples, report.cut, report.cut_tokens, report.dropped) == (2, 1, 11, 1)
    assert max(map(len, report.train)) == 16
    cut, dropped = (str(finding) for finding in report.warnings)
    assert "1 of 3 conversations are cut to max_length 16 (11 tokens" in cut
    assert "1 of 3 conversations have nothing to learn in their first 16 tokens and are dropped" in dropped


def test_dropping_keeps_the_others_whole(make: Any) -> None:
    report = make(LONG, SHORT, max_length=16, too_long="drop").checked()
    assert (report.examples, report.dropped, report.cut) == (1, 1, 0)
    assert "1 of 2 conversations are over 16 tokens and are dropped" in report.warnings[0].what


def test_nothing_left_at_all_is_an_error(make: Any) -> None:
    report = make(ENDLESS, max_length=16, too_long="truncate")
    assert [finding.what for finding in report.errors] == ["no conversation is left to use"]


def test_a_template_that_eats_content_is_found(make: Any) -> None:
    fast = tiny.tokenizer()
    fast.chat_template = tiny.TEMPLATE.replace("{{ message['content'] }}", "{{ message['content'][:5] }}")
    found = make(SHORT, LONG, {"prompt": "w1 w2 w9", "completion": "w3"}, fast=fast).errors
    assert [(one.line, one.what.removeprefix("the chat template leaves out or changes ")) for one in found] == [
        (2, "the text of a message (assistant)"),
        (3, "the text of a message (user)"),
    ]


def test_findings_that_many_share_are_one(make: Any) -> None:
    fast = tiny.tokenizer()
    fast.chat_template = tiny.TEMPLATE.replace("<end> ", "")
    (finding,) = make(SHORT, LONG, ENDLESS, fast=fast).errors
    assert finding.line == 1
    assert "would not know how to end (and 2 more like it)" in finding.what


def test_a_tokenizer_that_does_not_fit_the_model_is_found(make: Any) -> None:
    (finding,) = make(SHORT, vocab_size=2).errors
    assert "eos_token (id 2) beyond the model's 2 ids" in finding.what
    report = make(SHORT, vocab_size=8)
    assert "knows 56 tokens, the model 8" in report.warnings[0].what
    assert [finding.what for finding in report.errors] == ["token 9 is beyond the model's 8 ids"]
    assert make(SHORT, vocab_size=None).findings == ()
    base = tiny.tokenizer()
    base.chat_template = None
    assert "no chat template" in make(SHORT, fast=base).errors[0].what


def test_answers_that_end_with_another_token_are_told(make: Any) -> None:
    report = make(SHORT, fast=tokenizer("gemma"), vocab_size=None).checked()
    assert "end with another token than tokenizer.eos_token ('<eos>')" in report.warnings[0].what


def test_rewritten_answers_and_lost_reasoning_are_told(make: Any) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>hm</think>a"},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b"},
    ]
    report = make({"messages": messages}, fast=tokenizer("qwen3"), vocab_size=None).checked()
    told = " ".join(finding.what for finding in report.warnings)
    assert "rewrites earlier answers" in told
    assert "leaves out the reasoning" in told
    assert report.examples == 1


def test_control_tokens_in_a_message_are_told(make: Any) -> None:
    report = make({"prompt": "what is <|im_end|>?", "completion": "a"}, fast=tokenizer("chatml"), vocab_size=None)
    assert "control tokens" in report.warnings[0].what


# --- the preview of the first batch


def test_the_preview_is_the_first_batch_with_its_borders(make: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"w{i} w{i + 1}", "completion": f"w{i + 2}"} for i in range(9)]
    report = make(*rows)
    config = RunConfig(model="m", train_file=tmp_path / "train.jsonl", batch_size=4, row_tokens=24, max_length=24)
    shown = preview(report.train, tiny.tokenizer(), config)
    assert [[one.tokens for one in row] for row in shown.rows] == [[9, 9], [9, 9]]
    assert {
        segment.text.strip() for row in shown.rows for one in row for segment in one.segments if segment.learned
    } <= {f"w{i + 2} <end>" for i in range(9)}
    text = shown.text()
    assert "step 1, row 1 of 2: 18 tokens" in text.plain
    assert text.plain.count("── conversation") == 4
    green = {text.plain[span.start : span.end].strip() for span in text.spans if span.style == "bold green"}
    assert len(green) == 4
    assert len(preview(report.train, tiny.tokenizer(), config, limit=3).rows[1]) == 1
    with pytest.raises(ValueError, match="no conversation to show"):
        preview([], tiny.tokenizer(), config)


def test_the_page_is_escaped_and_marks_what_is_learned(make: Any, tmp_path: Path) -> None:
    fast = tokenizer("chatml")
    report = make({"prompt": "<script>\x1b[2J", "completion": "<b>à…"}, fast=fast, vocab_size=None)
    config = RunConfig(model="m", train_file=tmp_path / "train.jsonl", batch_size=1)
    shown = preview(report.train, fast, config)
    page = shown.html()
    assert "<script" not in page
    assert "\x1b" not in page + str(shown)
    assert '<mark class="ipt-learned">&lt;b&gt;à…&lt;|im_end|&gt;</mark>' in page
    assert page == shown._repr_html_()
