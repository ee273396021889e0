"""Where a session's Jupyter server is, for itself and for others, from what JupyterHub and Jupyter set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipytune.endpoints.engines.jupyter import JupyterServer, around_us, server_from

HUB = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/lab/", "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/user/ada/lab/"}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        (HUB, None),
        ({**HUB, "JUPYTERHUB_HOST": ""}, None),
        ({**HUB, "JUPYTERHUB_HOST": "https://ada.hub.org"}, "https://ada.hub.org/user/ada/lab/proxy/5000/v1"),
        (
            {**HUB, "JUPYTERHUB_PUBLIC_URL": "https://hub.org/user/ada/lab/"},
            "https://hub.org/user/ada/lab/proxy/5000/v1",
        ),
    ],
)
def test_in_a_session_of_a_hub(environ: dict[str, str], url: str | None) -> None:
    found = server_from(environ)
    assert found is not None and found.hub
    assert found.identity_url == "http://127.0.0.1:8888/user/ada/lab/api/me"
    assert found.path(5000) == "/user/ada/lab/proxy/5000/v1" and found.url(5000) == url


def test_in_a_terminal_and_in_a_kernel_without_a_hub(tmp_path: Path) -> None:
    local = JupyterServer("/base/", "http://localhost:8888", "http://localhost:8888")
    assert server_from({"JUPYTER_SERVER_URL": "http://localhost:8888/base/"}) == local
    (tmp_path / "jpserver-17.json").write_text(json.dumps({"url": "http://localhost:8888/base/", "token": "x"}))
    assert around_us({"JPY_PARENT_PID": "17", "JUPYTER_RUNTIME_DIR": str(tmp_path)}) == local
    assert around_us({"JPY_PARENT_PID": "18", "JUPYTER_RUNTIME_DIR": str(tmp_path)}) is None


def test_outside_of_jupyter_there_is_none() -> None:
    assert server_from({}) is None
