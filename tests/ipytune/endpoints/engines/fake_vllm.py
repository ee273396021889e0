"""A program that takes vLLM's options and has its routes, refusals and habits, but no model: for tests without vLLM.

As vLLM does, it starts a worker of its own; this one has a session of its own too, and ignores SIGTERM, as one that
hangs in a driver would. $FAKE_VLLM chooses how it fails; $FAKE_VLLM_TRACE is a file for what it was started with.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAILURES = {
    "memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "port": "OSError: [Errno 98] Address already in use",
    "architecture": "Model architectures ['NewForCausalLM'] are not supported for now.",
}


class Engine(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.key = os.environ["VLLM_API_KEY"]
        self.adapters: dict[str, str] = {}
        super().__init__((options.host, options.port), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path.startswith("/v1") and self.headers.get("authorization") != f"Bearer {self.server.key}":
            return self._say(401, {"error": "Unauthorized"})
        return self._say(*self._answer(body))

    do_GET = do_POST

    def _answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        base, adapters = self.server.options.served_model_name, self.server.adapters
        if self.path == "/health":
            return 200, {}
        if self.path == "/v1/models":
            cards = [{"id": base, "root": self.server.options.model, "parent": None}]
            return 200, {"data": [*cards, *({"id": n, "root": p, "parent": base} for n, p in adapters.items())]}
        if self.path == "/v1/completions":
            known = body["model"] == base or body["model"] in adapters
            return (200, {"choices": [{"text": body["model"]}]}) if known else (404, {"error": "no such model"})
        if self.path == "/v1/load_lora_adapter" and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            adapters[body["lora_name"]] = body["lora_path"]
            return 200, {}
        if self.path == "/v1/unload_lora_adapter" and body["lora_name"] in adapters:
            del adapters[body["lora_name"]]
            return 200, {}
        return 404, {"error": "cannot be found"}

    def _say(self, status: int, content: Any) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--max-loras", type=int)
    parser.add_argument("--middleware")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--enforce-eager", action="store_true")
    options = parser.parse_args()
    failure = os.environ.get("FAKE_VLLM")
    if failure in FAILURES:
        sys.exit(FAILURES[failure])
    worker = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()
    print("Loading safetensors checkpoint shards: 100% Completed | 1/1", flush=True)
    trace = os.environ.get("FAKE_VLLM_TRACE")
    if trace:
        seen = {"pid": os.getpid(), "worker": child.pid, "environment": sorted(os.environ), "arguments": sys.argv}
        Path(trace).write_text(json.dumps(seen))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if failure == "late death":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    Engine(options).serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
