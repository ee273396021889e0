"""A draft holds whatever was typed, says what is wrong with it and where, and becomes the configuration it shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ipytune.finetune.draft import NAMES, Draft
from ipytune.lora.config import RunConfig

GIVEN = Draft().changed("train_file", "train.jsonl")


def test_numbers_come_as_text_and_an_emptied_field_is_its_default() -> None:
    draft = GIVEN.changed("lora.rank", "32").changed("learning_rate", "1e-3").changed("max_steps", "7")
    assert (draft.config.lora.rank, draft.config.learning_rate, draft.config.max_steps) == (32, 1e-3, 7)
    draft = draft.changed("lora.rank", " ").changed("max_steps", "")
    assert (draft.config.lora.rank, draft.config.max_steps) == (RunConfig.model_fields["lora"].default.rank, None)


def test_what_is_wrong_stands_at_its_field_and_what_was_typed_stays() -> None:
    draft = GIVEN.changed("lora.rank", "many").changed("epochs", "-1").changed("data.learn", "nothing")
    assert set(draft.errors) == {"lora.rank", "epochs", "data.learn"}
    assert draft.value("lora.rank") == "many"
    assert "'completions'" in draft.errors["data.learn"]
    with pytest.raises(ValidationError):
        _ = draft.config


def test_what_two_settings_make_wrong_stands_at_the_last_one_and_goes_with_the_other() -> None:
    draft = GIVEN.changed("max_length", "4096")
    assert list(draft.errors) == ["max_length"] and "Raise row_tokens" in draft.errors["max_length"]
    assert draft.changed("row_tokens", "4096").errors == {}
    assert list(GIVEN.changed("patience", "3").errors) == ["patience"]


def test_without_data_it_asks_for_it() -> None:
    assert Draft().errors == {"train_file": "Name a file with conversations"}
    assert GIVEN.changed("train_file", "").errors == Draft().errors


def test_a_name_that_is_no_setting_is_refused() -> None:
    for name in ("rank", "lora", "versions", "train_sha256", "lora.rank.x", "__class__"):
        with pytest.raises(KeyError, match=r"lora\.rank"):
            GIVEN.changed(name, 1)


def test_of_a_configuration_it_is_that_configuration() -> None:
    config = RunConfig.first_task()
    assert Draft.of(config).config == config
    assert Draft.of(config).changed("seed", "5").config == config.model_copy(update={"seed": 5})


@given(
    st.sampled_from(sorted(NAMES)), st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.text()))
)
def test_whatever_is_typed_gives_a_configuration_or_errors_at_settings(name: str, value: object) -> None:
    draft = GIVEN.changed(name, value)
    if draft.errors:
        assert set(draft.errors) <= set(NAMES) and all(draft.errors.values())
    else:
        assert isinstance(draft.config, RunConfig)
