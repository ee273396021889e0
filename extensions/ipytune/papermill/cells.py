"""How the cells of a notebook are run, saved and skipped, by papermill's own client: what both engines share.

`CellsEngine` is papermill's engine with two more settings, `resume` (go on after the last finished cell of the output
that is there) and `state` (keep variables for that); such an engine makes `Cells` over its own kernel. Promised:

- The output is saved when a cell begins and ends, and every 30 s within, also while the cell prints nothing. A save
  replaces the file in one step: a kill at any moment leaves a whole notebook.
- A finished cell of the old output keeps its output and its timings. Its variables come back from the record, or it is
  said which cells run again to make them.
- However the run ends, the output says so: the cell it stopped in is `failed`, those after it stay `pending`.
- The record of the variables goes away when all cells are through, and only then.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager
from papermill.iorw import papermill_io, write_ipynb
from papermill.log import logger

from ipytune.papermill import resume
from ipytune.papermill.resume import BANNER, CannotResume, Plan
from ipytune.papermill.state import State, StateUnavailable, new_run

log = logging.getLogger("ipytune.papermill")

CHEAP = 1.0
"""Seconds that keeping the variables may take after every cell; where it takes longer, it waits until the cells since
the last time took as long as it did: at most half of a run goes into it."""


class Output(NotebookExecutionManager):
    """papermill's output file, saved in one step, with what is kept of an older one."""

    nb: NotebookNode
    pbar: Any

    def __init__(self, nb: NotebookNode, plan: Plan | None, run: str, **settings: Any) -> None:
        super().__init__(nb, **settings)
        self.plan, self.through = plan, False
        self._held = False
        nb.metadata["ipytune"] = {"run": run}

    def save(self, **kwargs: Any) -> None:
        if self._held:
            return
        path = _local(self.output_path)
        if path:
            _write_at_once(self.nb, path)
            self.last_save_time = self.now()
        else:
            super().save(**kwargs)

    def notebook_start(self, **kwargs: Any) -> None:
        self._held = True  # not to be seen without what is kept
        super().notebook_start(**kwargs)
        for cell, before in zip(resume.code_cells(self.nb), self.plan.kept if self.plan else (), strict=False):
            cell.outputs = copy.deepcopy(before["outputs"])
            cell.execution_count = before.get("execution_count")
            cell.metadata.papermill = copy.deepcopy(before["metadata"]["papermill"])
            if "execution" in before["metadata"]:
                cell.metadata["execution"] = copy.deepcopy(before["metadata"]["execution"])
        self._held = False
        self.save()

    def forget(self, first: int) -> None:
        """From this code cell on nothing is kept after all: it runs again."""
        for cell in resume.code_cells(self.nb)[first:]:
            cell.outputs, cell.execution_count = [], None
            cell.metadata.papermill = {
                "exception": None,
                "start_time": None,
                "end_time": None,
                "duration": None,
                "status": self.PENDING,
            }

    def stopped(self, index: int, why: str) -> None:
        """The run ends within this cell, by no exception of the cell."""
        self.cell_exception(self.nb.cells[index])
        self._why = (index, why)

    _why: tuple[int, str] | None = None

    def notebook_complete(self, **kwargs: Any) -> None:
        pending = [cell for cell in self.nb.cells if cell.metadata.papermill["status"] == self.PENDING]
        self._held = True
        if not self.through and self.pbar:
            self.pbar.close()  # as far as it came, instead of at its end
            self.pbar = None
        super().notebook_complete(**kwargs)
        if not self.through:
            for cell in pending:
                cell.metadata.papermill["status"] = self.PENDING
        if self._why:
            index, why = self._why
            self.nb.cells.insert(index, _banner(f"The run stopped in the cell below: {why}"))
        self._held = False
        self.save()


class Cells(PapermillNotebookClient):
    """papermill's client, which keeps variables after each finished cell and goes on from an older output."""

    def __init__(self, nb_man: Output, *, run: str = "", keep: bool = True, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self._run, self._keep = run, keep
        self._state: State | None = None
        self._cost = self._since = 0.0
        self._told: set[str] = set()
        self._widgets = copy.deepcopy(nb_man.nb.metadata.get("widgets"))

    def ask(self, code: str, expression: str) -> str | None:
        assert self.kc is not None
        message = self.kc.execute(code, silent=True, store_history=False, user_expressions={"answer": expression})
        limit = self.trait_values()["timeout"]
        self.set_trait("timeout", None)  # it is one of cells
        try:
            reply = self.wait_for_reply(message)
        finally:
            self.set_trait("timeout", limit)
        answer = ((reply or {}).get("content", {}).get("user_expressions") or {}).get("answer", {})
        found: str | None = answer.get("data", {}).get("text/plain")
        return found

    def papermill_execute_cells(self) -> None:
        code = resume.code_cells(self.nb)
        numbers = {id(cell): number for number, cell in enumerate(code)}
        plan = self.nb_man.plan
        first = self._begin(code, plan) if plan or self._keep else 0
        begun = first == 0
        for index, cell in enumerate(self.nb.cells):
            number = numbers.get(id(cell))
            begun = begun or number == first
            if begun:
                if not self._one(cell, index, number):
                    return
            else:
                self._pass_by(cell)
        self.nb_man.through = True
        self._drop()

    def _one(self, cell: NotebookNode, index: int, number: int | None) -> bool:
        """Runs one cell; whether the run goes on."""
        start, good = time.monotonic(), False
        self.nb_man.cell_start(cell, index)
        try:
            self.execute_cell(cell, index)
            good = True
        except CellExecutionError as error:
            self.nb_man.cell_exception(self.nb.cells[index], cell_index=index, exception=error)
        except BaseException as error:
            self._settle()
            self.shutdown_kernel = "immediate"  # it may be in the middle of the cell
            self.nb_man.stopped(index, _why(error))
            raise
        finally:
            self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
        if good and number is not None and cell.source.strip():
            self._save(number, time.monotonic() - start, resume.ONCE in resume.tags(cell))
        return good

    def _pass_by(self, cell: NotebookNode) -> None:
        if cell.cell_type != "code":
            cell.metadata.papermill["status"] = self.nb_man.COMPLETED
        if self.nb_man.pbar:
            self.nb_man.pbar.update(1)

    def _begin(self, code: list[NotebookNode], plan: Plan | None) -> int:
        """The code cell to begin with. Variables of those before it are there again."""
        try:
            self._state = State(self, self._run)
            if plan is None or not plan.kept:
                return 0
            first = self._restore(self._state, code, plan)
        except StateUnavailable as error:
            self._state = None
            log.warning("Variables cannot be kept for --resume here: %s.", error)
            first = 0
        kept = len(plan.kept) if plan else 0
        if first == 0 and kept:
            log.warning("No variables of the finished cells are left: they run again.")
        elif first:
            why = plan.reason if plan and first == kept else f"the variables are those of {_cells([first - 1])}"
            log.info("Going on at cell %d of %d: %s.", first + 1, len(code), why)
        self.nb_man.forget(first)
        self.nb_man.save()
        if not self._keep:
            self._drop()
        return first

    def _restore(self, state: State, code: list[NotebookNode], plan: Plan) -> int:
        record = state.look()
        if record is None:
            return 0
        first = min(len(plan.kept), record.cell + 1)
        sources = [cell.source for cell in code]
        once = [number for number, cell in enumerate(code) if resume.ONCE in resume.tags(cell)]
        known = dict(record.known)
        self._told = {name for name, what in known.items() if what.left}
        for _ in range(2):  # once more where a variable that was kept cannot be read
            what = resume.rebuild(sources, first, known, once)
            failed = state.restore(what.stale, first)
            new = {name: why for name, why in failed.items() if name in known and known[name].left is None}
            if not new:
                break
            known |= {name: resume.Known(known[name].changed, why) for name, why in new.items()}
        for name in record.secret_environ:
            log.warning("The environment variable %s, which a cell had set, was not kept: it looks secret.", name)
        if what.cells:
            names = "; ".join(f"{name} could not be kept ({why})" for name, why in sorted(what.why.items()))
            log.info("Running %s again: %s.", _cells(what.cells), names)
            for number in what.cells:
                state.before(number)
                self._again(code[number])
            state.before(first)
        return first

    def _again(self, cell: NotebookNode) -> None:
        """Runs a finished cell for its variables alone."""
        index = next(index for index, other in enumerate(self.nb.cells) if other is cell)
        twin = copy.deepcopy(cell)
        try:
            self.execute_cell(twin, index, store_history=False)
        except CellExecutionError as error:
            raise CannotResume(
                f"A finished cell had to run again for its variables, and failed now: {error.ename}: {error.evalue}. "
                "Run the notebook from its start, without --resume."
            ) from None
        finally:
            self.nb.cells[index] = cell

    def _save(self, number: int, seconds: float, must: bool) -> None:
        self._since += seconds
        if self._state is None or not self._keep or (self._cost > max(CHEAP, self._since) and not must):
            return
        try:
            saved = self._state.save(number)
        except StateUnavailable as error:
            log.warning("Variables cannot be kept for --resume here: %s.", error)
            self._state = None
            return
        self._cost, self._since = saved.seconds, 0.0
        for name in sorted(set(saved.left) - self._told):
            log.info("%s is not kept for --resume: %s.", name, saved.left[name])
        self._told |= set(saved.left)

    def _drop(self) -> None:
        if self._state is not None:
            try:
                self._state.drop()
            except (StateUnavailable, DeadKernelError):
                log.warning("The record of the variables could not be removed.")

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, *args: Any, **kwargs: Any) -> NotebookNode:
        """Also saves while the cell is silent."""
        saving = asyncio.ensure_future(self._save_now_and_then())
        try:
            return await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        finally:
            saving.cancel()

    execute_cell = run_sync(async_execute_cell)

    async def _save_now_and_then(self) -> None:
        while self.nb_man.autosave_cell_every:
            await asyncio.sleep(self.nb_man.autosave_cell_every)
            self.nb_man.autosave_cell()

    async def _async_settle(self) -> None:
        """After an interruption nothing of the cell goes on in the loop."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    _settle = run_sync(_async_settle)

    def set_widgets_metadata(self) -> None:
        super().set_widgets_metadata()
        kept = _widget_states(self._widgets)
        if kept:
            new = self.nb.metadata.setdefault("widgets", copy.deepcopy(self._widgets))
            states = _widget_states(new)
            states.update({name: state for name, state in kept.items() if name not in states})


class CellsEngine(Engine):
    """An engine of papermill that can go on from an older output. `cells` gives what `Cells` needs to know of it."""

    @classmethod
    def execute_notebook(
        cls,
        nb: NotebookNode,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        resume: bool = False,
        resume_from: str | None = None,
        state: bool = True,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        stdout_file: Any = None,
        stderr_file: Any = None,
        **kwargs: Any,
    ) -> NotebookNode:
        """resume: go on from the output that is there, or from `resume_from`. state: keep variables for that.

        Raises CannotResume, before anything is written.
        """
        plan = _plan(nb, resume_from or output_path) if resume or resume_from else None
        run = (plan.run if plan else None) or new_run()
        output = Output(
            nb,
            plan,
            run,
            output_path=output_path,
            progress_bar=progress_bar,
            log_output=log_output,
            autosave_cell_every=autosave_cell_every,
        )
        output.notebook_start()
        try:
            if plan and plan.finished:
                log.info("All cells were finished: nothing is left to run.")
                output.through = True
            else:
                options = {
                    "run": run,
                    "keep": state,
                    "log": logger,
                    "log_output": log_output,
                    "stdout_file": stdout_file,
                    "stderr_file": stderr_file,
                    "startup_timeout": start_timeout,
                    "timeout": execution_timeout,
                }
                cls.run_cells(output, kernel_name, options, **kwargs)
        finally:
            output.notebook_complete()
            output.cleanup_pbar()
        return output.nb

    @classmethod
    def run_cells(
        cls, output: Output, kernel_name: str, options: dict[str, Any], input_path: str | None = None, **keywords: Any
    ) -> None:
        """On the engine's own kernel. options: what `Cells` takes. keywords: those of papermill's caller."""
        raise NotImplementedError


def _local(path: str | None) -> Path | None:
    """A file of this machine, from where papermill was called: it may have gone into another directory since."""
    if not path or "://" in path or path == "-":
        return None
    handler = papermill_io.get_handler("local")
    base = handler.cwd(None)
    handler.cwd(base)
    return Path(base or "") / path


def _plan(nb: NotebookNode, given: str | None) -> Plan | None:
    path = _local(given)
    if path is None or not path.exists():
        log.info("There is no output yet to go on from: beginning at the first cell.")
        return None
    try:
        old = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its own, json's and those of reading
        raise CannotResume(
            f"{path} cannot be read as a notebook ({type(error).__name__}). Run without --resume to write it anew."
        ) from None
    found = resume.plan(nb, old)
    widgets = old.metadata.get("widgets")
    if widgets and found.kept:
        nb.metadata["widgets"] = copy.deepcopy(widgets)
    if not found.kept:
        log.info("Nothing of the old output can be kept: %s.", found.reason)
    return found


def _write_at_once(nb: NotebookNode, path: Path) -> None:
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".ipynb", dir=path.parent)
    os.close(descriptor)
    try:
        write_ipynb(nb, aside)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        Path(aside).chmod(mode)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _banner(text: str) -> NotebookNode:
    cell = nbformat.v4.new_markdown_cell(f"**{text}** Finished cells are kept: `ipytune run --resume` goes on here.")
    cell.metadata.update({"tags": [BANNER], "papermill": {"exception": None, "status": "completed"}})
    return cell


def _why(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it was asked to end, as a scheduler does when the walltime is nearly over."
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted."
    if isinstance(error, DeadKernelError):
        return "its kernel died."
    return f"{str(error) or type(error).__name__}".strip().splitlines()[0]


def _cells(numbers: tuple[int, ...] | list[int]) -> str:
    shown = ", ".join(str(number + 1) for number in numbers)
    return f"cell{'s' if len(numbers) > 1 else ''} {shown}"


def _widget_states(widgets: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = (widgets or {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    return found
