"""A measuring process: `python -m ipytune.load.worker`, started by run.py, spoken to in lines of JSON.

In:  {"prepare": {...}}, {"start": nanoseconds}, {"stop": true}; the end of the input ends the process.
Out: {"ready": true}, {"progress": {...}} four times a second, {"records": [...], ...} after a step,
     {"failed": {"what", "why", "remedy"}}.
The endpoint comes as its record: the key is read here, from where the record says, and is in no line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any, TextIO

from ipytune.endpoints.errors import EndpointError, Unreachable
from ipytune.endpoints.records import Endpoint
from ipytune.load.arrivals import read_trace
from ipytune.load.connection import ConnectFailed
from ipytune.load.plan import Load, Plan
from ipytune.load.runner import Measured, Runner

_PROGRESS_SECONDS = 0.25


class _Worker:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._runner: Runner | None = None
        self._commands: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        while (command := await self._commands.get()) is not None:
            try:
                if "prepare" in command:
                    await self._prepare(command["prepare"])
                    self._say({"ready": True})
                elif "start" in command and self._runner is not None:
                    self._say(_told(await self._run(self._runner, command["start"])))
            except EndpointError as error:
                self._say({"failed": {"what": error.what, "why": error.why, "remedy": error.remedy}})

    async def _prepare(self, job: dict[str, Any]) -> None:
        endpoint, plan = Endpoint.model_validate(job["endpoint"]), Plan.model_validate(job["plan"])
        trace = read_trace(plan.trace, plan.trace_scale) if plan.trace is not None else ()
        load = Load(**job["load"])
        runner = Runner(endpoint, plan, load, mark=job["mark"], share=job["share"], of=job["of"], trace=trace)
        try:
            await runner.prepare()
        except ConnectFailed as error:
            raise Unreachable(
                f"“{endpoint.name}” cannot be reached at {endpoint.base_url}.",
                error.fault.message,
                "Check that the server runs, takes so many connections, and that host and port are right.",
            ) from None
        self._runner = runner

    async def _run(self, runner: Runner, start: int) -> Measured:
        running = asyncio.create_task(runner.run(start))
        while not running.done():
            await asyncio.wait({running}, timeout=_PROGRESS_SECONDS)
            self._say({"progress": _progress(runner)})
        return running.result()

    def _listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if "stop" in command:
                self._loop.call_soon_threadsafe(self._stop)
            else:
                self._loop.call_soon_threadsafe(self._commands.put_nowait, command)
        # The controller is gone, however it went: end the step and the process.
        self._loop.call_soon_threadsafe(self._stop)
        self._loop.call_soon_threadsafe(self._commands.put_nowait, None)

    def _stop(self) -> None:
        if self._runner is not None:
            self._runner.stop()

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message, separators=(",", ":")) + "\n")
        self._out.flush()


def _progress(runner: Runner) -> dict[str, Any]:
    live = runner.live
    return {
        "sent": live.sent,
        "running": live.running,
        "done": live.done,
        "errors": live.errors,
        "chunks": runner.chunks(),
        "ttft": list(live.ttft),
        "gaps": runner.recent_gaps(),
    }


def _told(measured: Measured) -> dict[str, Any]:
    return {
        "records": [record.packed() for record in measured.records],
        "begin": measured.begin,
        "end": measured.end,
        "vitals": measured.vitals.packed(),
        "ended": measured.ended,
    }


async def _main(out: TextIO) -> None:
    await _Worker(out).serve()


def main() -> None:
    # The lines go to the controller alone; whatever else is printed goes to the error output.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        asyncio.run(_main(out))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)  # nobody reads any more: not even what flushing at exit would say


if __name__ == "__main__":
    main()
