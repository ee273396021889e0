"""What cannot be used is answered with 400, naming the field and what is allowed, by every way in; nothing is started."""

import json
import random
import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_requests import SOUND, generated
from hybridspawner.request import InvalidRequest, SpawnRequest, validate
from hybridspawner.site import load_site
from tests.hub.client import User
from tests.hub.process import Hub

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"profile": "supercomputer"}, "profile", "cpu-1"),
    ({"environment": "fortran"}, "environment", "pytorch"),
    ({"target": "moon"}, "target", "auto, "),
    ({"runtime": "13:00:00"}, "runtime", "12:00:00"),
    ({"runtime": "ten minutes"}, "runtime", "HH:MM:SS"),
    ({"runtime": "00:00:00"}, "runtime", "HH:MM:SS"),
    ({"target": "local", "partition": "debug"}, "partition", "Slurm"),
    ({"account": "a b"}, "account", "letters"),
    ({"notebook": "../../etc/passwd"}, "notebook", "home directory"),
    ({"notebook": "/etc/passwd"}, "notebook", "home directory"),
    ({"lease": "00:00:05"}, "lease", "00:00:30 to 01:00:00"),
    ({"colour": "red"}, "colour", "profile"),
    ({"partition": "normal\n#SBATCH --nodes=4"}, "partition", ""),
    ({"reservation": "x; rm -rf ~"}, "reservation", ""),
    ({"account": "{{ 7 * 7 }}"}, "account", ""),
]


@pytest.fixture(scope="module")
def user(hub: Hub) -> User:
    return hub.login("mallory")


def refused(user: User, answer: httpx.Response, field: str, allowed: str) -> None:
    assert answer.status_code == 400, answer.text
    text = answer.text.replace("&#39;", "'")
    assert f"{field}" in text and "Allowed: " in text and allowed in text.split("Allowed: ")[1]
    assert "Traceback" not in text
    assert user.model() is None


@pytest.mark.parametrize(
    ("options", "field", "allowed"), BAD, ids=[next(iter(o)) + str(i) for i, (o, _, _) in enumerate(BAD)]
)
def test_rest_form_and_link_alike(user: User, options: dict[str, str], field: str, allowed: str) -> None:
    refused(user, user.post(options), field, allowed)
    refused(user, user.form(options), field, allowed)
    refused(user, user.link(options), field, allowed)


@pytest.mark.parametrize("runtime", [{"a": 1}, ["02:00:00"], 7200, True, 1.5])
def test_a_runtime_that_is_not_text(user: User, runtime: Any) -> None:
    refused(user, user.post({"runtime": runtime}), "runtime", "02:00:00")


def test_a_bad_request_does_not_spoil_the_spawn_page_or_the_next_start(user: User) -> None:
    assert user.post({"profile": "supercomputer"}).status_code == 400
    page = user.browser.get("/hub/spawn")
    assert page.status_code == 200 and 'value="cpu-1" checked' in page.text
    assert user.post(None).status_code in (201, 202)  # the stored request is not the bad one
    list(user.events())
    user.stop()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*SpawnRequest.model_fields, "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
        ),
        min_size=1,
    ).filter(lambda o: any(v is not None for v in o.values()))
)
def test_no_request_is_a_fault_of_the_hub(user: User, options: dict[str, Any]) -> None:
    answer = user.api.get(
        "/hub/api/hybridspawner/offers", params={k: str(v) for k, v in options.items() if v is not None}
    )
    assert answer.status_code in (200, 400), answer.text


def test_requests_that_are_refused_hold_up_nobody(hub: Hub, user: User) -> None:
    began = time.monotonic()
    for _ in range(40):
        answer = user.api.post(f"/hub/api/users/{user.name}/servers/", json={"user_options": {"profile": "none"}})
        assert answer.status_code == 400
    assert time.monotonic() - began < 20  # one that kept its turn to the end would keep it for a second


def test_hundreds_of_generated_requests_are_answered_with_400_and_nothing_starts(hub: Hub, user: User) -> None:
    site, dice = load_site(hub.directory / "site.yaml"), random.Random(7)
    sound = {
        **SOUND,
        "profile": [p.name for p in site.profiles],
        "environment": ["pytorch"],
        "target": ["auto", *(t.name for t in site.targets)],
    }
    refused, offered = 0, 0
    while refused < 300:
        options = json.loads(json.dumps(generated(dice, sound)))
        if not options:  # JupyterHub takes it for no options at all: a start with the defaults
            continue
        try:
            validate(options, site)
        except InvalidRequest as error:
            body = json.dumps({"user_options": options})
            answer = user.api.post(f"/hub/api/users/{user.name}/servers/", content=body)
            assert answer.status_code == 400, (body[:300], answer.text[:300])
            if isinstance(options, dict):
                assert answer.json()["message"].startswith(error.field), (body[:300], answer.text[:300])
            refused += 1
        else:
            query = {k: v for k, v in options.items() if v is not None}
            answer = user.api.get("/hub/api/hybridspawner/offers", params=query)
            assert answer.status_code == 200 and answer.json()["offers"], (query, answer.text[:300])
            offered += 1
    assert offered > 20 and user.model() is None
    assert "Traceback" not in hub.log.split("mallory")[-1]
