"""Where the engine learns which hub, token and session to use; what it says of what is missing."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from ipytune.papermill.errors import SettingsError
from ipytune.papermill.settings import LEASE, REQUEST_FIELDS, gather, hub_root

ENOUGH = {"OBERALP_HUB": "https://hub.example.org", "OBERALP_TOKEN": "s3cret"}


def test_an_environment_is_enough() -> None:
    settings = gather({}, {}, ENOUGH | {"OBERALP_PROFILE": "gpu-1", "OBERALP_RUNTIME": "01:00:00"})
    assert settings.hub == "https://hub.example.org"
    assert settings.token == SecretStr("s3cret")
    assert settings.request == {"lease": LEASE, "profile": "gpu-1", "runtime": "01:00:00"}
    assert settings.user is None and settings.cwd == ""


def test_keywords_go_before_parameters_and_those_before_the_environment() -> None:
    environment = ENOUGH | {"OBERALP_PROFILE": "c", "OBERALP_TARGET": "c", "OBERALP_ACCOUNT": "c"}
    parameters = {"profile": "b", "target": "b", "PROFILE": "smoke", "other": 1}
    request = gather({"profile": "a"}, parameters, environment).request
    assert request == {"lease": LEASE, "profile": "a", "target": "b", "account": "c"}


def test_a_token_in_a_file_goes_before_one_in_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert gather({}, {}, ENOUGH | {"OBERALP_TOKEN_FILE": str(file)}).token == SecretStr("from-file")
    assert gather({"token_variable": "MINE"}, {}, ENOUGH | {"MINE": "mine"}).token == SecretStr("mine")


def test_inside_a_session_the_hub_is_known() -> None:
    inside = {"JUPYTERHUB_API_URL": "http://10.0.0.1:8081/hub/api", "JUPYTERHUB_API_TOKEN": "t"}
    assert gather({}, {}, inside).hub == "http://10.0.0.1:8081"
    public = inside | {"JUPYTERHUB_PUBLIC_HUB_URL": "https://hub.example.org/hub/"}
    assert gather({}, {}, public).hub == "https://hub.example.org"


def test_what_is_missing_is_said_at_once_and_where_to_get_it() -> None:
    with pytest.raises(SettingsError) as refused:
        gather({}, {}, {})
    words = str(refused.value)
    assert "No hub is named" in words and "OBERALP_HUB" in words
    assert "No token" in words and "/hub/token" in words and "OBERALP_TOKEN_FILE" in words
    for scope in ("servers", "read:servers", "access:servers"):
        assert scope in words


@pytest.mark.parametrize("token", ["", "two words", "ключ", "a\nb"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(SettingsError) as refused:
        gather({}, {}, ENOUGH | {"OBERALP_TOKEN_FILE": str(file)})
    assert not token or token not in str(refused.value)


def test_a_token_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match=r"/nowhere/token cannot be read.*OBERALP_TOKEN_FILE"):
        gather({}, {}, ENOUGH | {"OBERALP_TOKEN_FILE": "/nowhere/token"})


@pytest.mark.parametrize(
    ("address", "root"),
    [
        ("https://hub.example.org/", "https://hub.example.org"),
        ("https://hub.example.org/hub", "https://hub.example.org"),
        ("https://hub.example.org/hub/spawn?x=1", "https://hub.example.org"),
        ("https://example.org/jupyter/hub/api", "https://example.org/jupyter"),
        ("https://example.org/jupyter/", "https://example.org/jupyter"),
        ("http://[::1]:8000/hub/", "http://[::1]:8000"),
    ],
)
def test_any_address_of_a_hub_will_do(address: str, root: str) -> None:
    assert hub_root(address) == root


@pytest.mark.parametrize(
    "address", ["hub.example.org", "ftp://hub", "https://me:pw@hub.example.org", "http://[", "x:y"]
)
def test_what_is_no_address_is_refused_and_no_password_repeated(address: str) -> None:
    with pytest.raises(SettingsError) as refused:
        hub_root(address)
    assert "pw" not in str(refused.value)


def test_an_account_may_be_a_number_but_a_time_must_be_text() -> None:
    assert gather({}, {"account": 42}, ENOUGH).request["account"] == "42"
    for field, value in (("runtime", 5400), ("lease", 60), ("profile", True), ("target", ["a"])):
        with pytest.raises(SettingsError, match=f"{field}: must be text"):
            gather({}, {field: value}, ENOUGH)


@pytest.mark.parametrize("cwd", ["/etc", "~root", "a/../../b", "a\\b"])
def test_the_working_directory_stays_below_home(cwd: str) -> None:
    with pytest.raises(SettingsError, match="below the session's home"):
        gather({"session_cwd": cwd}, {}, ENOUGH)
    assert gather({"session_cwd": "./a//b/"}, {}, ENOUGH).cwd == "a/b"


def test_the_fields_are_those_of_the_hubs_one_schema() -> None:
    schema = pytest.importorskip("hybridspawner.request")
    assert set(REQUEST_FIELDS) == set(schema.SpawnRequest.model_fields)
