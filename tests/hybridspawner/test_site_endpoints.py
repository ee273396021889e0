"""The site's model endpoints: checked like the rest of the site file, never with a key, told to whom they are open."""

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubespawner import KubeSpawner

from hybridspawner.deployment import Deployment
from hybridspawner.endpoints import VARIABLE, SiteEndpoint, session_variables
from hybridspawner.request import SpawnRequest
from hybridspawner.site import KubernetesTarget, SiteError, SlurmTarget, parse_site
from hybridspawner.targets.local import Local, LocalSessionSpawner
from hybridspawner.targets.slurm import Slurm
from hybridspawner.targets.slurm.spawner import SlurmSessionSpawner
from tests.hybridspawner.carried_out import pod_traits
from tests.hybridspawner.sites import document, site

MARKER = "sk-MARKER-0123456789abcdef"
OPEN = {"name": "site", "base_url": "https://inference.example.org/v1", "model": "meta-llama/Llama-3.1-8B"}
STAFF = {**OPEN, "name": "staff-only", "key_file": "~/.config/site/key", "groups": ["staff"]}
PROJECT = {**OPEN, "name": "project", "key_env": "PROJECT_KEY", "groups": ["staff", "projects"]}


def deployed(tmp_path: Any, **changes: Any) -> Deployment:
    return Deployment(site(endpoints=[OPEN, STAFF, PROJECT], **changes), tmp_path, "http://hub/port")


def told(tmp_path: Any, target: str, groups: set[str]) -> list[dict[str, str]]:
    """The endpoints in the environment of a session there, as the session reads them."""
    made = deployed(tmp_path)
    spec = made.site.target(target)
    launch = made.launch(SpawnRequest(profile="small", environment="torch", runtime="01:00:00"), target, groups)
    child: Any
    if isinstance(spec, SlurmTarget):
        child = SlurmSessionSpawner(user=SimpleNamespace(name="ada"))
        Slurm(spec.model_copy(update={"home": "/home/{username}"}), "http://hub/port").prepare(child, launch)
        return list(json.loads(child.environment[VARIABLE]))
    if isinstance(spec, KubernetesTarget):
        with mock.patch("kubespawner.spawner.load_config"), mock.patch("kubespawner.spawner.shared_client"):
            kubespawner = KubeSpawner(user=SimpleNamespace(name="ada", id=1), _mock=True)
        # it fills in {username} and the like
        return list(json.loads(kubespawner._expand_env(pod_traits(spec, launch)["environment"])[VARIABLE]))
    child = LocalSessionSpawner(user=SimpleNamespace(name="ada"))
    Local(spec, tmp_path, tmp_path).prepare(child, launch)
    return list(json.loads(child.environment[VARIABLE]))


@pytest.mark.parametrize("target", ["pods", "alps", "here"])
@pytest.mark.parametrize(
    ("groups", "names"),
    [(set(), ["site"]), ({"projects"}, ["site", "project"]), ({"staff"}, ["site", "staff-only", "project"])],
)
def test_a_session_is_told_of_the_endpoints_that_its_user_may_ask(
    tmp_path: Any, target: str, groups: set[str], names: list[str]
) -> None:
    seen = told(tmp_path, target, groups)
    assert [each["name"] for each in seen] == names
    assert seen[0] == OPEN  # as it stands in the site file, letter for letter; groups are the hub's business
    assert all("groups" not in each for each in seen)


def test_without_endpoints_nothing_is_set(tmp_path: Any) -> None:
    made = Deployment(site(), tmp_path, "http://hub/port")
    launch = made.launch(SpawnRequest(profile="small", environment="torch", runtime="01:00:00"), "here", {"staff"})
    assert launch.variables == {} and session_variables(()) == {}


def test_an_environments_own_variables_go_before(tmp_path: Any) -> None:
    environments = document()["environments"]
    environments[0]["targets"]["here"] = {"variables": {VARIABLE: "[]", "OTHER": "1"}}
    made = deployed(tmp_path, environments=environments)
    launch = made.launch(SpawnRequest(profile="small", environment="torch", runtime="01:00:00"), "here")
    assert launch.variables == {VARIABLE: "[]", "OTHER": "1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": MARKER}, "`key`: no key belongs into the site file"),
        ({"api_key": MARKER}, "no key belongs into the site file"),
        ({"key_env": MARKER}, "the NAME of a variable"),
        ({"key_file": MARKER}, "begins with / or ~/"),
        ({"base_url": f"https://user:{MARKER}@h/v1"}, "without user, password"),
        ({"base_url": f"https://h/v1?key={MARKER}"}, "without user, password"),
        ({"base_url": "ftp://h"}, "http:// or https://"),
        ({"base_url": "https://h/$(KEY)"}, "http:// or https://"),
        ({"model": "a b"}, "letters, digits"),
        ({"model": "$(SECRET)"}, "letters, digits"),
        ({"name": "Not A Name"}, "endpoints.0.name"),
        ({"key_env": "A", "key_file": "/k"}, "not both"),
        ({"colour": "red"}, "endpoints.0.colour"),
    ],
)
def test_a_fault_is_named_with_its_place_and_never_with_what_may_be_a_key(fields: dict, message: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse_site({**document(), "endpoints": [{**OPEN, **fields}]})
    assert message in str(caught.value) and "endpoints.0" in str(caught.value)
    assert MARKER not in str(caught.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(SiteError, match="named twice: site"):
        parse_site({**document(), "endpoints": [OPEN, OPEN]})


@settings(deadline=None)
@given(st.text(max_size=60))
def test_whatever_is_taken_as_a_url_means_nothing_to_a_template_or_a_shell(tail: str) -> None:
    url = f"https://host/{tail}"
    try:
        SiteEndpoint(name="a", base_url=url, model="m")
    except ValueError:
        return
    assert not set(url) & set("{}$`'\"\\ \n@?#") and url.isascii()
