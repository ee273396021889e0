"""The node's call to a real hub: only the token of a waiting session counts, and never more than a port is taken."""

import httpx
import pytest

from tests.hub.process import Hub

PATH = "/hub/api/hybridspawner/port"


def call(hub: Hub, token: str | None, json: object = None) -> httpx.Response:
    headers = {"Authorization": f"token {token}"} if token else {}
    return httpx.post(hub.url + PATH, json=json, headers=headers, trust_env=False)


def test_without_a_token_of_this_hub_nobody_is_heard(hub: Hub) -> None:
    assert call(hub, None, {"port": 4000}).status_code == 403
    assert call(hub, "made-up", {"port": 4000}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [{"port": 0}, {"port": 65536}, {"port": "80"}, {"port": True}, {"ip": "1"}, [], "x", {"port": 80, "ip": "x"}],
)
def test_what_is_no_port_is_a_400(hub: Hub, body: object) -> None:
    answer = call(hub, hub.login("caller").token, body)
    assert answer.status_code == 400 and "port" in answer.json()["message"]


def test_a_token_of_no_waiting_session_is_a_404(hub: Hub) -> None:
    user = hub.login("caller")
    assert call(hub, user.token, {"port": 4000}).status_code == 404
    user.start({"profile": "cpu-1", "target": "local"})
    token = user.run_cell("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    assert call(hub, token, {"port": 4000}).status_code == 404  # a local session waits for no call
    assert user.run_cell("print(1)") == "1\n"
    user.stop()
    assert call(hub, token, {"port": 4000}).status_code == 403  # revoked with its session
