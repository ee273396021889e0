"""Every setting is a field with a label, a reason and a control that takes its values; nothing is said twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.finetune import form
from ipytune.finetune.draft import NAMES, Draft

ALL = (*form.DATA, *form.SETTINGS, *form.MORE)


def test_every_setting_is_shown_once() -> None:
    assert len(set(ALL)) == len(ALL)
    assert set(ALL) == set(NAMES) - {"data.columns"}  # which has rows of its own


def test_every_field_says_what_it_is_for() -> None:
    for field in form.fields(ALL):
        assert field.label and len(field.help) > 15, field.name


def test_controls_fit_their_settings() -> None:
    kinds = {field.name: field for field in form.fields(ALL)}
    assert kinds["data.layout"].choices[0] == "auto" and kinds["data.layout"].kind == "choice"
    assert kinds["lora.dora"].kind == "switch" and kinds["sample_prompts"].kind == "lines"
    assert kinds["track"].kind == "choices" and kinds["track"].choices == ("tensorboard", "mlflow")
    assert kinds["max_steps"].kind == "number" and kinds["max_steps"].optional
    assert kinds["lora.rank"].kind == "number" and not kinds["lora.rank"].optional


@given(st.sampled_from(ALL))
def test_what_a_control_holds_comes_back_as_the_same_setting(name: str) -> None:
    draft = Draft().changed("train_file", "t.jsonl")
    shown = form.shown([name], draft)[0]
    typed = draft.changed(name, form.as_typed(name, shown["value"]))
    assert typed.config == draft.config


def test_lists_are_typed_as_lines_or_words() -> None:
    draft = Draft().changed("train_file", "t.jsonl")
    draft = draft.changed("sample_prompts", form.as_typed("sample_prompts", "one\n\n two \n"))
    draft = draft.changed("lora.targets", form.as_typed("lora.targets", "q_proj, v_proj"))
    draft = draft.changed("track", form.as_typed("track", ["tensorboard"]))
    assert draft.config.sample_prompts == ("one", " two ")
    assert draft.config.lora.targets == ("q_proj", "v_proj") and draft.config.track == ("tensorboard",)
    with pytest.raises(ValueError, match="track takes a list"):
        form.as_typed("track", 3)


def test_an_error_is_shown_with_what_was_typed() -> None:
    draft = Draft().changed("train_file", "t.jsonl").changed("lora.rank", "many")
    field = form.shown(["lora.rank"], draft)[0]
    assert field["value"] == "many" and "integer" in field["error"] and field["placeholder"] == "16"


def test_the_mapping_offers_the_file_s_columns() -> None:
    rows = form.mapping(["question", "answer"], ["prompt", "completion"], {"prompt": "question"})
    assert [(row["name"], row["value"]) for row in rows] == [("prompt", "question"), ("completion", "")]
    assert rows[0]["choices"] == ["question", "answer"]
