"""A TCP forwarder between a hub and what it talks to: it can be cut, frozen and slowed, and the other end serves on."""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import urlparse

import yaml


class Forwarder:
    """Forwards 127.0.0.1:`port` to host:port of `url`. Its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        address = urlparse(url)
        self._host, self._port = address.hostname or "", address.port or 443
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.delay = 0.0
        """Seconds that everything sent to the other end is held back."""
        self.port = 0

    def __enter__(self) -> "Forwarder":
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._server.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def kubeconfig(self, original: Path, directory: Path) -> Path:
        """A copy of a kubeconfig that goes through here."""
        config = yaml.safe_load(original.read_text())
        for cluster in config["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
            cluster["cluster"]["insecure-skip-tls-verify"] = True
            cluster["cluster"].pop("certificate-authority-data", None)
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def cut(self) -> None:
        """Break every connection, and each new one at once: a server that is down."""
        self._do(self._set(cut=True, frozen=False))

    def freeze(self) -> None:
        """Accept and hold everything: a server that hangs."""
        self._do(self._set(cut=False, frozen=True))

    def heal(self) -> None:
        self._do(self._set(cut=False, frozen=False))

    def _do(self, step):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _set(self, cut: bool, frozen: bool) -> None:
        self._cut = cut
        if cut:
            for writer in list(self._writers):
                writer.transport.abort()
        if frozen:
            self._open.clear()
        else:
            self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        with suppress(OSError):
            upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
            self._writers |= {writer, upstream}
            await asyncio.gather(
                self._pump(reader, upstream, delayed=True), self._pump(upstream_reader, writer, delayed=False)
            )
            self._writers -= {writer, upstream}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delayed: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                if delayed and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()
