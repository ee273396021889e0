"""A server for what was just tuned: base model and adapter behind one OpenAI-compatible URL, stopped with its caller.

    with serve("smollm2-135m-instruct", run="runs/first") as server:
        chat(server.tuned, "two nodes for three hours")

The server is transformers' (see server_process.py), started in a process of its own, so that the caller imports no
torch and gets its memory back. It needs the extra `serve` of ipytune, and no network.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import httpx

from ipytune.endpoints.layout import Served, served_name, write_cache
from ipytune.endpoints.records import Endpoint
from ipytune.models import resolve
from ipytune.runs import Run

START_SECONDS = 300.0  # importing torch from a cold network file system can take minutes
_STOP_SECONDS = 10.0

Progress = Callable[[str], None]


class ServeFailed(RuntimeError):
    """The server did not come up. `log_tail` holds the last lines that it wrote."""

    def __init__(self, what: str, why: str, remedy: str, log_tail: str = "") -> None:
        super().__init__(what, why, remedy, log_tail)
        self.what, self.why, self.remedy, self.log_tail = what, why, remedy, log_tail

    def __str__(self) -> str:
        tail = f"\n\nThe end of its log:\n{self.log_tail}" if self.log_tail else ""
        return f"{self.what} {self.why} {self.remedy}{tail}"


class Server:
    """A running server. `endpoints` are its models: the base first, then the tuned one if there is one."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, endpoints: tuple[Endpoint, ...]) -> None:
        self._process = process
        self._directory = directory
        self._lock = threading.Lock()
        self.endpoints = endpoints

    @property
    def base(self) -> Endpoint:
        return self.endpoints[0]

    @property
    def tuned(self) -> Endpoint:
        """The tuned model's endpoint. Raises ValueError when the server was started without a run."""
        if len(self.endpoints) < 2:
            raise ValueError("This server has only a base model. Start it with serve(model, run=...).")
        return self.endpoints[1]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log_tail(self, lines: int = 30) -> str:
        return _tail(self._directory, lines)

    def wait(self) -> int:
        """Block until the server ends; its exit code. For `ipytune serve`."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server and remove its temporary files. Harmless when it has ended already."""
        with self._lock:
            _end(self._process)
            shutil.rmtree(self._directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "stopped"
        return f"Server({', '.join(e.model for e in self.endpoints)} at {self.base.base_url}, {state})"


def serve(
    model: str | Path = "smollm2-135m-instruct",
    run: Run | Path | str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout: float = START_SECONDS,
    progress: Progress | None = print,
) -> Server:
    """Start a server with `model`, and with the adapter of `run` as a second model, and wait until both are loaded.

    model: what ipytune.models.resolve takes.   run: a Run, a run directory, or an adapter directory.   port: 0 finds a
    free one.   progress: called with a short line at each stage; None for silence.
    Raises ServeFailed, with the end of the server's log, when it does not come up within `timeout` seconds;
    FileNotFoundError when there is no such adapter.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise ServeFailed(
            "No server can be started.",
            "The libraries for serving are not installed in this environment.",
            "Install them: pip install 'ipytune[serve]'.",
        )
    say = progress or (lambda line: None)
    served = _models(model, run)
    directory = Path(tempfile.mkdtemp(prefix="ipytune-serve-"))
    try:
        write_cache(directory / "models", served)
        key_file = directory / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(secrets.token_urlsafe(32), encoding="ascii")
        say(f"Starting the server with {' and '.join(item.name for item in served)} …")
        process = _launch(directory, host, port)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        base_url = _wait_until_healthy(process, directory, host, time.monotonic() + timeout, timeout)
        endpoints = tuple(
            Endpoint(
                name="base" if item.adapter is None else "tuned",
                base_url=base_url,
                model=item.name,
                key_file=key_file,
            )
            for item in served
        )
        for endpoint in endpoints:
            say(f"Loading {endpoint.model} …")
            _load(endpoint, process, directory, timeout)
    except BaseException:
        _end(process)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    server = Server(process, directory, endpoints)
    atexit.register(server.stop)
    say(f"Ready: {base_url}")
    return server


def _models(model: str | Path, run: Run | Path | str | None) -> list[Served]:
    base = Served(served_name(str(model) if not Path(model).is_dir() else Path(model).name), _directory_of(model))
    if run is None:
        return [base]
    if isinstance(run, Run):
        folder, adapter = run.path, run.adapter
    else:
        folder = Path(run)
        adapter = folder if (folder / "adapter_config.json").is_file() else folder / "adapter"
    name = served_name(folder.resolve().name)
    return [base, Served(name if name != base.name else f"{name}-tuned", base.base, adapter)]


def _directory_of(model: str | Path) -> Path:
    resolved = resolve(str(model))
    if isinstance(resolved, Path) or Path(resolved).is_dir():
        return Path(resolved)
    from huggingface_hub import snapshot_download  # only for models of the hub; takes a moment to import

    return Path(snapshot_download(resolved))


def _launch(directory: Path, host: str, port: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(directory / "models"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ipytune.endpoints.server_process", str(directory), host, str(port)],
            stdin=subprocess.PIPE,  # held open as long as we live; its end tells the server that we are gone
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,  # a model's name that is also a folder here would be taken for that folder
            start_new_session=True,  # an interrupt of the kernel is for the cell, not for the server
        )


def _wait_until_healthy(
    process: subprocess.Popen[bytes], directory: Path, host: str, deadline: float, timeout: float
) -> str:
    """The base URL, once /health answers."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    reach = f"[{reach}]" if ":" in reach else reach
    port_file = directory / "port"
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while True:
            if process.poll() is not None:
                raise _died(process, directory)
            if port_file.exists():
                root = f"http://{reach}:{port_file.read_text(encoding='ascii')}"
                try:
                    if http.get(f"{root}/health").status_code == 200:
                        return f"{root}/v1"
                except httpx.TransportError:
                    pass  # not listening yet
            if time.monotonic() > deadline:
                raise ServeFailed(
                    f"The server was not ready after {timeout:g} s.",
                    "It is still starting; libraries on a busy network file system can take long.",
                    "Try again (the second start is quicker), or allow more: serve(..., timeout=600).",
                    _tail(directory, 15),
                )
            time.sleep(0.1)


def _load(endpoint: Endpoint, process: subprocess.Popen[bytes], directory: Path, timeout: float) -> None:
    """Have the server load the model now, so that the first answer is as quick as the others."""
    key = endpoint.read_key()
    assert key is not None
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    url = f"{endpoint.api_root.removesuffix('/v1')}/load_model"
    problem = "it did not say that the model is ready"
    try:
        with (
            httpx.Client(trust_env=False, timeout=timeout) as http,
            http.stream("POST", url, json={"model": endpoint.model}, headers=headers) as response,
        ):
            for line in response.iter_lines():
                event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if event.get("status") == "ready":
                    return
                if event.get("status") == "error":
                    problem = str(event.get("message", problem))
    except httpx.HTTPError as error:
        if process.poll() is not None:
            raise _died(process, directory) from None
        problem = str(error)
    raise ServeFailed(
        f"The server could not load {endpoint.model}.",
        f"Its reason: {problem.rstrip('.')}.",
        "Check that the model is one of transformers' and that its files are complete.",
        _tail(directory, 15),
    )


def _died(process: subprocess.Popen[bytes], directory: Path) -> ServeFailed:
    code = process.returncode
    how = f"It was ended by signal {-code}." if code < 0 else f"It ended with exit code {code}."
    remedy = "Ask for a session with more memory." if code == -9 else "The end of its log says why."
    return ServeFailed("The server ended while it was starting.", how, remedy, _tail(directory, 15))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _tail(directory: Path, lines: int) -> str:
    try:
        text = (directory / "log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
