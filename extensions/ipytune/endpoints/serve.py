"""A server for what was just tuned: base model and adapters behind one OpenAI-compatible URL, stopped with its caller.

    with serve("smollm2-135m-instruct", run="runs/first") as server:
        chat(server.tuned, "two nodes for three hours")
        other = server.load_adapter("runs/second")

It runs on vLLM where there is one, else on transformers (the extra `serve` of ipytune), and says which and why. The
engine is a process of its own, so that the caller imports no torch and gets its memory back; it never outlives the
caller, and neither does any process of its own (engines/keeper.py). It wants a key that is made for it and is in no
argument, no output and no file but one that only its user reads. No network is needed.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ipytune.adapter import load as loading
from ipytune.adapter.source import Adapter, open_adapter
from ipytune.endpoints.engines import jupyter, transformers, vllm, warm
from ipytune.endpoints.engines.choose import Choice, choose
from ipytune.endpoints.engines.facts import Facts, gather
from ipytune.endpoints.engines.failure import ServeFailed
from ipytune.endpoints.engines.kept import Kept
from ipytune.endpoints.engines.plan import EngineName, Plan, Wanted
from ipytune.endpoints.engines.registered import Registered
from ipytune.endpoints.engines.shape import read_shape
from ipytune.endpoints.engines.sharing import Sharing, share
from ipytune.endpoints.errors import BadRequest
from ipytune.endpoints.layout import Served, served_name, write_cache
from ipytune.endpoints.records import Endpoint
from ipytune.models import resolve
from ipytune.runs import Run

__all__ = ["Progress", "ServeFailed", "Server", "load_adapter", "serve", "unload_adapter"]

_PORT_TRIES = 3

Progress = Callable[[str], None]
Source = Run | Path | str


class Server:
    """A running server. `endpoints` are its models: the base first, then the adapters as they were loaded."""

    def __init__(
        self, kept: Kept, directory: Path, plan: Plan, base: Endpoint, sharing: Sharing | None, registered: Registered
    ) -> None:
        self._kept = kept
        self._directory = directory
        self._plan = plan
        self._sharing = sharing
        self._registered = registered
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._endpoints = [base]
        registered.add(base)
        atexit.register(self._at_exit)
        # An engine that ends by itself must not stay in the catalogue.
        threading.Thread(target=self._watch, name="ipytune-serve", daemon=True).start()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self._endpoints)

    @property
    def base(self) -> Endpoint:
        return self._endpoints[0]

    @property
    def tuned(self) -> Endpoint:
        """The first adapter's endpoint. Raises ValueError when there is none."""
        if len(self._endpoints) < 2:
            raise ValueError(
                "This server has only a base model. Start it with serve(model, run=...), or use load_adapter."
            )
        return self._endpoints[1]

    @property
    def engine(self) -> EngineName:
        return self._plan.engine

    @property
    def pid(self) -> int:
        """Of the process that looks after the engine; the engine's own are its descendants."""
        return self._kept.pid

    @property
    def running(self) -> bool:
        return self._kept.running

    @property
    def proxy_url(self) -> str | None:
        """Where a browser, or another session, reaches it through the hub; only the path where the session does not
        know the hub's public address; None outside of a Jupyter server with jupyter-server-proxy."""
        return self._sharing.url if self._sharing is not None else None

    def shared(self, endpoint: Endpoint | None = None, key_env: str = jupyter.HUB_TOKEN) -> Endpoint:
        """The endpoint as another session reaches it. key_env: the variable *there* that holds a token of the hub with
        access to this session. Raises ValueError when it cannot be reached, or its address is not known."""
        if self._sharing is None or not self._sharing.url.startswith("http"):
            raise ValueError(
                "This server cannot be named from elsewhere: it is in no Jupyter server with jupyter-server-proxy, or "
                "the hub does not tell its public address (c.JupyterHub.public_url)."
            )
        update = {"base_url": self._sharing.url, "key_env": key_env, "key_file": None}
        return (endpoint or self.base).model_copy(update=update)

    def load_adapter(
        self, source: Source, name: str | None = None, *, replace: bool = False, any_base: bool = False
    ) -> Endpoint:
        """Serve the adapter of a run (or of a directory) beside the base, without a restart; its endpoint.

        name: of the model there; by default the run's.   replace: exchange one of that name.   any_base: do not compare
        the base's name with the adapter's. Raises ServeFailed when this engine, or this start of it, cannot; what
        ipytune.adapter.load.load raises for the rest.
        """
        adapter = open_adapter(source)
        name = name or _adapter_name(adapter, self.base.model)
        if served_name(name) != name:
            raise BadRequest(f"{name!r:.100} is no name for a model.", "", f"Take {served_name(name)!r}.")
        with self._lock:
            _fits(self.engine, self._plan.max_lora_rank, adapter)
            endpoint = loading.load(self.base, source, name, replace=replace, any_base=any_base)
            self._drop(name)
            self._endpoints.append(endpoint)
            self._registered.add(endpoint)
        return endpoint

    def unload_adapter(self, name: str) -> None:
        """Take an adapter away, and give its memory back. Raises ModelNotFound when there is none of that name."""
        with self._lock:
            loading.unload(self.base.model_copy(update={"name": name, "model": name}))
            self._drop(name)

    def log_tail(self, lines: int = 30) -> str:
        return self._kept.tail(lines)

    def wait(self) -> int:
        """Block until the server ends; its exit code. For `ipytune serve`."""
        return self._kept.wait()

    def stop(self) -> None:
        """End the server and remove its temporary files. Harmless when it has ended already."""
        with self._lock:
            self._registered.close()
            if self._sharing is not None:
                self._sharing.stop()
            self._kept.stop()
            shutil.rmtree(self._directory, ignore_errors=True)
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"{self.engine}, pid {self.pid}" if self.running else "stopped"
        return f"Server({', '.join(e.model for e in self.endpoints)} at {self.base.base_url}, {state})"

    def _drop(self, name: str) -> None:
        for endpoint in [one for one in self._endpoints[1:] if one.model == name]:
            self._endpoints.remove(endpoint)
            self._registered.remove(endpoint)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # a fork of this process ends without our server
            self.stop()

    def _watch(self) -> None:
        self._kept.wait()
        self._registered.close()


def serve(
    model: str | Path = "smollm2-135m-instruct",
    run: Source | None = None,
    *,
    engine: Wanted = "auto",
    adapters: Mapping[str, Source] | None = None,
    gpus: int | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    name: str | None = None,
    max_lora_rank: int | None = None,
    any_base: bool = False,
    extra: Sequence[str] = (),
    timeout: float | None = None,
    progress: Progress | None = print,
) -> Server:
    """Start a server with `model`, and with adapters as further models, and wait until each of them answers.

    model: what ipytune.models.resolve takes.   run: a Run, a run directory, or an adapter directory, served as `tuned`.
    engine: "auto" takes vLLM where it can serve this, else transformers.   adapters: name -> further ones.   gpus: use
    at most so many, 0 for none; by default the fewest of the session's that hold the model.   port: 0 finds a free one.
    name: of the base in the catalogue; by default the model's.   max_lora_rank: the greatest rank of adapters loaded
    later, by default 32 or that of those given; 0 starts vLLM without adapters.   any_base: serve an adapter whose base
    has another name.   extra: further options of the engine (vLLM).   timeout: seconds; by default 300 for
    transformers, 1800 for vLLM.   progress: called with a short line at each stage; None for silence.
    Raises ServeFailed, with the end of the server's log, when it does not come up; AdapterError, ModelNotFound or
    FileNotFoundError when there is no such adapter or model.
    """
    say = progress or (lambda line: None)
    directory_of_model = _directory_of(model)
    base_name = served_name(str(model) if not Path(model).is_dir() else directory_of_model.name)
    wanted = _adapters(run, adapters or {}, base_name)
    opened = {key: open_adapter(source) for key, source in wanted.items()}
    facts = gather()
    refused = [words for adapter in opened.values() if (words := vllm.refuses(adapter.settings))]
    shape = read_shape(directory_of_model)
    choice = choose(engine, facts, shape, gpus=gpus, vllm_refuses=refused[0] if refused else None)
    if extra and choice.engine != "vllm":
        raise ServeFailed("`extra` holds options of vLLM.", choice.why, "Leave it out, or make vLLM available.")
    ranks = [adapter.rank for adapter in opened.values()]
    rank = max([vllm.USUAL_RANK, *ranks]) if max_lora_rank is None else max_lora_rank
    for adapter in opened.values():
        _fits(choice.engine, vllm.rank_limit(rank) if choice.engine == "vllm" else None, adapter)
    say(f"Starting {base_name}. {choice.why}")

    directory = Path(tempfile.mkdtemp(prefix="ipytune-serve-"))
    kept: Kept | None = None
    sharing: Sharing | None = None
    try:
        key_file = _write_key(directory)
        base = Served(base_name, directory_of_model)
        if choice.engine == "transformers":
            write_cache(directory / "models", [base])
            (directory / "base.json").write_text(json.dumps({"name": base.name, "path": str(base.base)}))
        kept, plan, root = _started(choice, facts, directory, base, host, port, rank, tuple(extra), timeout, say)
        endpoint = Endpoint(name="base", base_url=f"{root}/v1", model=base.name, key_file=key_file)
        seconds = timeout or plan.start_seconds
        if plan.engine == "transformers":
            say(f"Loading {base.name} …")
            warm.load(endpoint, kept, seconds, say)
        warm.first_token(endpoint, kept, seconds)
        sharing = share(directory, root, say)
    except BaseException:
        _end(kept, sharing, directory)
        raise
    server = Server(kept, directory, plan, endpoint, sharing, Registered(say, name))
    try:
        for key, source in wanted.items():
            say(f"Loading {key} …")
            tuned = server.load_adapter(source, key, any_base=any_base)
            if source is run:
                server._endpoints[-1] = tuned.model_copy(update={"name": "tuned"})
    except BaseException:
        server.stop()
        raise
    say(f"Ready: {server.base.base_url}")
    return server


def load_adapter(
    endpoint: Endpoint, source: Source, name: str | None = None, *, replace: bool = False, any_base: bool = False
) -> Endpoint:
    """The adapter of a run, beside the base behind any endpoint that allows it: a vLLM that others run, for example.

    Raises what ipytune.adapter.load.load raises, whose arguments these are."""
    return loading.load(endpoint, source, name, replace=replace, any_base=any_base)


def unload_adapter(endpoint: Endpoint) -> None:
    """Take the adapter `endpoint.model` from its server."""
    loading.unload(endpoint)


def _started(
    choice: Choice,
    facts: Facts,
    directory: Path,
    base: Served,
    host: str,
    port: int,
    rank: int,
    extra: tuple[str, ...],
    timeout: float | None,
    say: Progress,
) -> tuple[Kept, Plan, str]:
    """The engine, listening, with its root URL. A free port that another program took meanwhile is tried again."""
    if port and _taken(host, port):  # asked before: who listens there may answer in the engine's stead
        raise ServeFailed(
            f"{base.name} cannot be served at port {port}.",
            "Its port is taken by another program.",
            "Choose another, or port=0 for a free one.",
        )
    for attempt in range(1, _PORT_TRIES + 1):
        if choice.engine == "vllm":
            assert facts.vllm is not None
            plan = vllm.plan(
                facts.vllm,
                base.base,
                base.name,
                host=host,
                port=port or _free_port(host),
                gpus=choice.gpus,
                max_lora_rank=rank,
                memory=facts.memory,
                environ=os.environ,
                extra=extra,
            )
        else:
            plan = transformers.plan(directory, host=host, port=port, gpus=choice.gpus)
        kept = Kept.start(
            plan.command,
            directory,
            environment=plan.environment,
            without=plan.without,
            key_variable=plan.key_variable,
        )
        try:
            root = warm.wait_until_healthy(kept, plan, directory, host, timeout or plan.start_seconds, say)
        except warm.PortTaken:
            kept.stop()
            if port or attempt == _PORT_TRIES:
                raise
        except BaseException:
            kept.stop()
            raise
        else:
            return kept, plan, root
    raise AssertionError("the last try returns or raises")


def _adapters(run: Source | None, further: Mapping[str, Source], base: str) -> dict[str, Source]:
    """Name on the server -> what holds the adapter; that of `run` first."""
    wanted: dict[str, Source] = {}
    if run is not None:
        wanted[_adapter_name(open_adapter(run), base)] = run
    for name, source in further.items():
        if name in wanted or name == base:
            raise ValueError(f"two models of one server have the same name: {name}")
        wanted[name] = source
    return wanted


def _adapter_name(adapter: Adapter, base: str) -> str:
    name = served_name(loading.default_name(adapter))
    return name if name != base else f"{name}-tuned"


def _fits(engine: EngineName, max_rank: int | None, adapter: Adapter) -> None:
    """Raises what is known to speak against an adapter before the engine is asked."""
    if engine == "vllm" and (words := vllm.refuses(adapter.settings)):
        raise ServeFailed(words, "", "Merge it (ipytune merge), or serve it with engine='transformers'.")
    if max_rank is not None and adapter.rank > max_rank:
        allowed = f"adapters of rank {max_rank} at most" if max_rank else "no adapters"
        raise loading.RankTooHigh(
            f"The adapter's rank is {adapter.rank}, and this server takes {allowed}.",
            "",
            f"Start it again with max_lora_rank={loading.served_rank(adapter.rank)} (--max-lora-rank).",
        )


def _directory_of(model: str | Path) -> Path:
    resolved = resolve(str(model))
    if isinstance(resolved, Path) or Path(resolved).is_dir():
        return Path(resolved)
    from huggingface_hub import snapshot_download  # only for models of the hub; takes a moment to import

    return Path(snapshot_download(resolved))


def _write_key(directory: Path) -> Path:
    file = directory / "key"
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(32), encoding="ascii")
    return file


def _free_port(host: str) -> int:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _taken(host: str, port: int) -> bool:
    """Whether somebody listens there. Another reason why it cannot be had is the engine's to tell."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _end(kept: Kept | None, sharing: Sharing | None, directory: Path) -> None:
    if sharing is not None:
        sharing.stop()
    if kept is not None:
        kept.stop()
    shutil.rmtree(directory, ignore_errors=True)
