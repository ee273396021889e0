"""One word names an endpoint on every command line: a name of the catalogue, or a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipytune.endpoints import BadRequest, Unreachable
from ipytune.endpoints.naming import from_words, looks_like_key, only, several
from tests.ipytune.endpoints.mock_server import Mock
from tests.ipytune.endpoints.places import Places, places

__all__ = ["places"]  # the fixture

SITE = {"name": "site", "base_url": "https://inference.example/v1", "model": "big", "key_env": "SITE_KEY"}


def test_a_name_is_looked_up(places: Places) -> None:
    places.site(SITE)
    assert from_words("site").model_dump(exclude_none=True) == SITE


def test_a_url_asks_its_server_for_the_only_model(places: Places, mock: Mock) -> None:
    endpoint = from_words(mock.url)
    assert (endpoint.name, endpoint.base_url, endpoint.model) == ("m", mock.url, "m")
    mock.models = ("a", "b")
    with pytest.raises(BadRequest, match="It lists: a, b"):
        from_words(mock.url)
    assert from_words(mock.url, model="b").model == "b"
    mock.models = ()
    with pytest.raises(BadRequest, match="lists no model"):
        from_words(mock.url)


def test_a_url_with_a_model_is_not_asked(places: Places, tmp_path: Path) -> None:
    endpoint = from_words("http://127.0.0.1:9/v1", model="m", key_file=tmp_path / "key")
    assert endpoint.key_file == tmp_path / "key"
    with pytest.raises(Unreachable, match="127.0.0.1"):
        from_words("http://127.0.0.1:9/v1")


@pytest.mark.parametrize("word", ["127.0.0.1:8000", "localhost:8000/v1", "nid001234:8000", "host.example/v1"])
def test_an_address_without_a_scheme_is_completed_in_the_remedy(places: Places, word: str) -> None:
    with pytest.raises(BadRequest, match=f"Write http://{word}"):
        from_words(word)


@pytest.mark.parametrize("word", ["sk-abcdefghijklmnop", "hf_abcdefghijkl", "Bearer abcdefgh"])
def test_a_key_in_the_place_of_a_name_is_not_repeated(places: Places, word: str) -> None:
    assert looks_like_key(word)
    with pytest.raises(BadRequest) as caught:
        from_words(word)
    assert word not in str(caught.value) and "--key-env" in caught.value.remedy


@pytest.mark.parametrize("options", [{"model": "other"}, {"key_env": "OTHER"}, {"key_file": "/k"}])
def test_what_belongs_to_a_url_is_not_silently_left_out_of_a_name(places: Places, options: dict[str, str]) -> None:
    places.site(SITE)
    with pytest.raises(BadRequest, match="given by its URL"):
        from_words("site", **options)  # type: ignore[arg-type]


def test_of_several_the_model_belongs_to_the_urls(places: Places) -> None:
    places.site(SITE)
    one, two = several(["site", "http://127.0.0.1:9"], model="first", key_env="A_KEY")
    assert (one.model, one.key_env) == ("big", "SITE_KEY")
    assert (two.name, two.model, two.key_env) == ("first", "first", "A_KEY")
    with pytest.raises(BadRequest, match="given by its URL"):
        several(["site"], model="first")


def test_several_of_one_name_are_told_apart(places: Places) -> None:
    names = [e.name for e in several(["http://a:1", "http://b:2", "http://b:2/v1"], model="m")]
    assert names == ["m at a:1", "m at b:2 (1)", "m at b:2 (2)"]


def test_none_named_takes_the_only_one_there_is(places: Places) -> None:
    with pytest.raises(BadRequest, match="none in the catalogue"):
        only()
    places.site(SITE)
    assert only().name == "site" and [each.name for each in several([])] == ["site"]
    places.site(SITE, {**SITE, "name": "other"})
    with pytest.raises(BadRequest, match="There is: site, other"):
        only()
