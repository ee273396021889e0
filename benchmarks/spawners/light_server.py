#!/usr/bin/env python3
"""A session's server for tests of hundreds: answers as jupyterhub-singleuser does to the hub's probe, in 15 MB.

Real JupyterLabs take 100 MB and a second of a core each; what is measured here is what happens before and around them.
OBERALP_LIGHT_DELAY: seconds from the start until it listens (a server that is slow to come up).
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"version": "light", "path": self.path, "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", os.environ.get("OBERALP_LIGHT_VERSION", ""))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        self.socket.setsockopt(1, 2, 1)  # SOL_SOCKET, SO_REUSEADDR
        self.socket.bind(self.server_address)  # without the base class's look-up of a host name
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "light", self.server_address[1]


def main() -> None:
    # a pod's first process has no default action for it, and jupyterhub-singleuser ends at once as well
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    time.sleep(float(os.environ.get("OBERALP_LIGHT_DELAY", "0")))
    port = urlparse(os.environ.get("JUPYTERHUB_SERVICE_URL", "http://0.0.0.0:0")).port or 0
    server = Server(("0.0.0.0", port), Handler)
    if len(sys.argv) > 2 and sys.argv[1] == "--port-file":  # without a hub: the bare job of start_overhead.py
        with open(sys.argv[2] + ".new", "w") as file:  # noqa: PTH123  pathlib costs 10 ms of what is measured
            file.write(str(server.server_address[1]))
        os.rename(sys.argv[2] + ".new", sys.argv[2])  # noqa: PTH104
    server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    main()
