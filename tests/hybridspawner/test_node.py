"""node.py on a node: finds a port, tells the hub, goes on trying, and gives up when it is not wanted."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tornado.netutil import bind_sockets

from hybridspawner import node


class FakeHub(HTTPServer):
    """Answers with the statuses it is given, one after the other (the last one stays), and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.seen = list(statuses), []
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/hub/api/hybridspawner/port"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.headers["Authorization"], body))
        self.send_response(self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0])
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[FakeHub]:
    server = FakeHub(*request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.time, "sleep", lambda _: None)


@pytest.mark.parametrize("hub", [(503, 500, 204)], indirect=True)
def test_a_hub_that_is_not_ready_is_asked_again(hub: FakeHub) -> None:
    assert node.announce(hub.url, "secret", 4000) is True
    assert hub.seen == [("token secret", {"port": 4000})] * 3


@pytest.mark.parametrize("hub", [(404,), (403,)], indirect=True)
def test_a_session_that_is_not_wanted_gives_up_at_once(hub: FakeHub) -> None:
    assert node.announce(hub.url, "secret", 4000) is False
    assert len(hub.seen) == 1


def test_a_hub_that_is_out_of_reach_ends_it_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "PATIENCE", 5)
    with node.hold_port() as silent:
        assert node.announce(f"http://127.0.0.1:{silent.getsockname()[1]}/", "secret", 4000) is None


def test_a_held_port_is_the_servers_and_is_given_to_nobody_who_asks_for_any() -> None:
    with node.hold_port() as holder, socket.socket() as stranger:
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("0.0.0.0", port))
        (server,) = bind_sockets(port, "0.0.0.0")  # as Jupyter's server does it
        server.close()


@pytest.mark.parametrize(
    ("present", "missing"),
    [((), "jupyterhub"), (("jupyterhub",), "jupyterlab"), (("jupyterhub", "notebook"), None)],
)
def test_an_environment_without_its_packages_is_told_before_the_hub_waits(
    monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], missing: str | None
) -> None:
    monkeypatch.delenv("JUPYTERHUB_SINGLEUSER_APP", raising=False)
    monkeypatch.setattr(node.importlib.util, "find_spec", lambda name: object() if name in present else None)
    assert node.missing_package() == missing


@pytest.mark.parametrize("hub", [(204,)], indirect=True)
def test_handed_over_as_text_it_becomes_the_server_and_keeps_the_token_from_the_command_line(hub: FakeHub) -> None:
    from hybridspawner.targets.slurm.spawner import _RUN_NODE_PROGRAM, NODE_PROGRAM

    program = NODE_PROGRAM.replace(
        'os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *sys.argv[1:]])',
        "print(sys.argv[1:], os.environ['JUPYTERHUB_SERVICE_URL'], sorted(k for k in os.environ if 'HYBRID' in k))",
    )
    assert program != NODE_PROGRAM
    env = {
        "HYBRIDSPAWNER_NODE": program,
        "HYBRIDSPAWNER_CALLBACK": hub.url,
        "JUPYTERHUB_API_TOKEN": "t",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
    }
    argv = [sys.executable, "-c", _RUN_NODE_PROGRAM, "--debug"]
    out = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    port = hub.seen[0][1]["port"]
    assert out.splitlines()[-1] == f"['--debug'] http://0.0.0.0:{port}/user/ada/ ['HYBRIDSPAWNER_CALLBACK']"
