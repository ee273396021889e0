"""What a server puts into the catalogue, under names that nobody else has, and takes out again."""

from __future__ import annotations

from ipytune.endpoints import Endpoint
from ipytune.endpoints.catalogue import Catalogue
from ipytune.endpoints.engines.registered import Registered


def endpoint(model: str) -> Endpoint:
    return Endpoint(name="base", base_url="http://127.0.0.1:9/v1", model=model)


def test_endpoints_come_under_free_names_and_go() -> None:
    said: list[str] = []
    one, other = Registered(said.append, "mine"), Registered(said.append)
    one.add(endpoint("org/small"))
    one.add(endpoint("first"))
    other.add(endpoint("org/small"))
    other.add(endpoint("first"))
    assert {"mine", "first", "small", "first-2"} <= set(Catalogue.load().names)
    assert Catalogue.load().get("first-2").model == "first"
    one.remove(endpoint("first"))
    assert "first" not in Catalogue.load().names
    one.close()
    other.close()
    other.add(endpoint("late"))
    assert not {"mine", "small", "first-2", "late"} & set(Catalogue.load().names) and said == []
