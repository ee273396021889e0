"""What a session runs first on its node: choose a port, tell the hub, become the server.

It is handed to the node's Python as text (by the environment variable HYBRIDSPAWNER_NODE), so the environment of a
session needs jupyterhub and jupyterlab but not this package. Standard library only, Python >= 3.8.

The hub may be away for a while (a restart, a network fault): the call is repeated with growing pauses. It may also have
given up on this session meanwhile: then it answers 403 or 404, and the allocation is handed back at once.

The port stays bound from its choice until the server has ended, so the kernel gives it to nobody else in between.
"""

import importlib.util
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


def hold_port() -> socket.socket:
    """A socket bound to a TCP port that was free on this node. It does not listen: with SO_REUSEADDR, which Jupyter's
    server sets too, the server can bind the same port, while the kernel hands it to nobody who asks for any port."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("", 0))
    return holder


def missing_package() -> "str | None":
    """A package without which there is no session, if the environment lacks it: better said before the hub waits."""
    if importlib.util.find_spec("jupyterhub") is None:
        return "jupyterhub"
    pages = ("jupyterlab", "notebook")  # a site that names another application knows what it needs
    if "JUPYTERHUB_SINGLEUSER_APP" in os.environ or any(importlib.util.find_spec(name) for name in pages):
        return None
    return "jupyterlab"


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
    missing = missing_package()
    if missing is not None:
        sys.exit(f"{sys.executable}: No module named {missing}")
    holder = hold_port()
    port = holder.getsockname()[1]
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
    holder.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *sys.argv[1:]])


if __name__ == "__main__":
    main()
