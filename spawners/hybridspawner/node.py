"""What a session runs first on its node: choose a port, tell the hub, become the server.

It is handed to the node's Python as text (by the environment variable HYBRIDSPAWNER_NODE), so the environment of a
session needs jupyterhub and jupyterlab but not this package. Standard library only, Python >= 3.8.

The hub may be away for a while (a restart, a network fault): the call is repeated with growing pauses. It may also have
given up on this session meanwhile: then it answers 403 or 404, and the allocation is handed back at once.
"""

import json
import os
import pathlib
import socket
import sys
import time
import urllib.error
import urllib.request

PATIENCE = 900  # seconds to go on trying to reach the hub
LONGEST_PAUSE = 15


def free_port() -> int:
    """A TCP port that is free on this node now."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def tell_hub(url: str, token: str, port: int) -> bool:
    """POST the port. True: the hub waits for it. False: this session is not wanted. OSError: no answer."""
    request = urllib.request.Request(
        url,
        data=json.dumps({"port": port}).encode(),
        headers={"Authorization": "token " + token, "Content-Type": "application/json"},
        method="POST",
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the hub is never behind a web proxy
    try:
        with opener.open(request, timeout=20):
            return True
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return False
        raise


def announce(url: str, token: str, port: int) -> "bool | None":
    """Repeat the call until the hub answers. Returns its answer; None if it was out of reach for PATIENCE seconds."""
    deadline, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            return tell_hub(url, token, port)
        except (OSError, urllib.error.URLError) as error:
            print(f"Cannot reach the hub at {url}: {error}. Trying again in {pause:.0f} s.", flush=True)
        if time.monotonic() + pause > deadline:
            return None
        time.sleep(pause)
        pause = min(pause * 1.7, LONGEST_PAUSE)


def main() -> None:
    os.environ.pop("HYBRIDSPAWNER_NODE", None)
    url = os.environ["HYBRIDSPAWNER_CALLBACK"]
    port = free_port()
    print(f"Session on {socket.gethostname()}, port {port}", flush=True)
    wanted = announce(url, os.environ["JUPYTERHUB_API_TOKEN"], port)
    if wanted is None:
        sys.exit(f"The hub at {url} was out of reach for {PATIENCE} s: giving the allocation back.")
    if not wanted:
        sys.exit("The hub does not wait for this session any more: giving the allocation back.")
    address = "http://0.0.0.0:{}{}".format(port, os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
    os.environ["JUPYTERHUB_SERVICE_URL"] = address
    # what the environment installed (ipytune, pip, ...) is what a terminal in the session finds first
    os.environ["PATH"] = str(pathlib.Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", os.defpath)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *sys.argv[1:]])


if __name__ == "__main__":
    main()
