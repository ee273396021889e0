"""Records hold names, never keys, and say what is wrong with what was typed without repeating it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ipytune.endpoints import BadRequest, Endpoint, KeyMissing
from ipytune.endpoints.records import described


def make(**fields: object) -> Endpoint:
    return Endpoint.model_validate({"name": "e", "base_url": "http://127.0.0.1:1", "model": "m", **fields})


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://h", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("https://h/proxy/8000", "https://h/proxy/8000/v1"),
        ("https://h/api/v1beta", "https://h/api/v1beta"),
    ],
)
def test_the_version_segment_is_added_when_it_is_missing(url: str, root: str) -> None:
    assert make(base_url=url).api_root == root


@pytest.mark.parametrize("url", ["h", "ftp://h", "http://", "http://user:SECRET@h", "http://h/?key=SECRET"])
def test_odd_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(base_url=url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("pasted", ["sk-abcdef", "hf_abcdEF", "abc def"])
def test_a_key_pasted_as_a_name_is_refused_without_repeating_it(pasted: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(key_env=pasted)
    assert pasted not in str(caught.value)
    with pytest.raises(BadRequest) as told:
        described(name="e", base_url="http://h", model="m", key_env=pasted)
    assert pasted not in str(told.value) and "NAME of an environment variable" in told.value.why


def test_a_key_comes_from_the_variable_or_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", " from-env \n")
    by_name = make(key_env="A_KEY")
    secret = by_name.read_key()
    assert secret is not None and secret.get_secret_value() == "from-env"
    assert "from-env" not in repr(by_name) + by_name.model_dump_json() + repr(secret)
    file = tmp_path / "key"
    with pytest.raises(KeyMissing, match="cannot be read"):
        make(key_file=file).read_key()
    file.write_text("from-file\n")
    secret = make(key_file=file).read_key()
    assert secret is not None and secret.get_secret_value() == "from-file"
    file.write_text("\n")
    with pytest.raises(KeyMissing, match="empty"):
        make(key_file=file).read_key()


def test_a_record_survives_json() -> None:
    record = make(key_env="A_KEY")
    assert Endpoint.model_validate_json(record.model_dump_json()) == record
