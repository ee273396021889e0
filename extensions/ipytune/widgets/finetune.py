"""Fine-tuning from data to adapter in one panel: Data, Settings, Memory, Training, Adapter.

    panel = FineTunePanel("runs/first", train_file="train.jsonl")
    panel                  # shows it; its buttons are the methods below
    report = panel.run()   # without a browser: checks the data, starts the run unless it was started, waits

The run directory holds the run: a panel made again on it, after a restart of the kernel, shows the run whole. What was
asked and found before it begins is in `ipytune.finetune.steps`; here is the page: what it shows, and what its buttons
do, in which thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets
import traitlets

from ipytune.endpoints.serve import Server, serve
from ipytune.finetune import form, take_out
from ipytune.finetune.draft import Draft
from ipytune.finetune.look import Look, data_files, model_names
from ipytune.finetune.steps import Steps, differing
from ipytune.lora.config import RunConfig
from ipytune.memory.advice import Fit
from ipytune.memory.probe import Probe
from ipytune.runs import Phase, Run
from ipytune.runs.launch import Launcher
from ipytune.widgets import finetune_views as views
from ipytune.widgets.compare import ComparePanel
from ipytune.widgets.shown import Panel, script
from ipytune.widgets.training import TrainingPanel

Result = TypeVar("Result")

STEPS = ("data", "settings", "memory", "training", "adapter")
# What the panel says while it does what takes long; a method and its button say the same.
_BUSY = {
    "check": "Reading the data",
    "estimate": "Estimating",
    "probe": "Running one step to measure it",
    "apply": "Estimating",
    "start": "Checking the data",
    "merge": "Merging the adapter, and comparing the answers",
    "gguf": "Writing the GGUF file, and comparing the answers",
    "card": "Writing the model card",
    "try": "Loading the base and the adapter",
    "stop_trying": "Ending the server",
}


class FineTunePanel(Panel):
    """See the module.

    run_dir: where the run is, or will be.   config: settings to begin with; single ones by name, `train_file=...`.
    launcher: who trains (`ipytune.runs.launch`); None: a process of this session.

    A directory that holds a run is shown as it is, whatever the settings given; `run` refuses when they differ.
    """

    _esm = script("finetune.js")

    title = traitlets.Unicode().tag(sync=True)
    at = traitlets.Unicode("data").tag(sync=True)
    steps: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    busy = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    locked = traitlets.Bool(False).tag(sync=True)
    offered = traitlets.Dict().tag(sync=True)
    data_fields: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    settings_fields: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    more_fields: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    columns = traitlets.Dict().tag(sync=True)
    found = traitlets.Dict().tag(sync=True)
    memory = traitlets.Dict().tag(sync=True)
    result = traitlets.Dict().tag(sync=True)
    training = traitlets.Instance(TrainingPanel, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)
    sides = traitlets.Instance(ComparePanel, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(
        self,
        run_dir: Path | str,
        config: RunConfig | None = None,
        *,
        launcher: Launcher | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._launcher = launcher
        self._path = Path(run_dir)
        draft = Draft.of(config) if config is not None else Draft()
        for name, value in settings.items():
            draft = draft.changed(name, str(value) if isinstance(value, Path) else value)
        if settings and (wrong := [name for name in draft.errors if name in settings]):
            raise ValueError(f"{wrong[0]}: {draft.errors[wrong[0]]}")
        self._steps = Steps(draft)
        self._server: Server | None = None
        self._given = draft
        files = data_files(Path())
        self.offered = {"train_file": files, "eval_file": files, "model": model_names(Path())}
        self._adopt_existing()
        self._steps.read_columns()
        self._show()

    # --- the steps, as methods ---------------------------------------------------------------------------------------

    @property
    def config(self) -> RunConfig:
        """The settings as they stand. Raises ConfigError naming what is wrong or missing."""
        return self._steps.config

    @property
    def adapter(self) -> Path | None:
        """The adapter's directory, once there is one."""
        run = self._run
        return run.adapter if run is not None and (run.adapter / "adapter_config.json").is_file() else None

    def set(self, name: str, value: Any) -> None:
        """Change a setting, by its path: `panel.set("lora.rank", 32)`. A wrong value is shown beside it.

        Raises KeyError for a name that is no setting, ValueError while the panel shows a run.
        """
        self._refuse_if_locked()
        self._steps.set(name, value)
        self._show()

    def check(self) -> Look:
        """Read the data, validate it, and show what will be learned of it. No model is loaded."""
        return self._here("check", self._check)

    def estimate(self) -> Fit:
        """The memory that the run needs against what this session has."""
        return self._here("estimate", self._estimate)

    def probe(self) -> Probe:
        """Run one step in a process of its own and measure it."""
        return self._here("probe", self._measure)

    def apply_change(self) -> None:
        """Take over the change of settings that makes the run fit. Raises ValueError when there is none."""
        self._steps.take_over_remedy()
        self._estimate()

    def start(self) -> None:
        """Check the data unless that was done, then start the run, or continue one that stopped. Returns at once."""
        if self.training is not None:
            self.training.start()
            return
        config = self.config
        found = self._steps.current_look or self._check()
        if not found.passed or self._steps.current_look is None:
            self.at = "data"
            raise ValueError("The data cannot be used yet. See what was found, mend it, and start again.")
        training = TrainingPanel(config, self._path, self._launcher)
        training.start()
        self._adopt(training)
        self.at = "training"
        self._show()

    def stop(self) -> None:
        """Ask the run to stop after the step it is at; what it has learned is kept."""
        if self.training is not None:
            self.training.stop()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """As TrainingPanel.wait: block until the run ends; its report."""
        if self.training is None:
            raise ValueError("Nothing was started: press Start, or call panel.start() or panel.run().")
        with self.watched_here():
            try:
                return self.training.wait(timeout)
            finally:
                self._show()

    def run(self, timeout: float | None = None) -> dict[str, Any]:
        """Start unless the run was started already, wait, and return the report. A completed run returns at once.

        Raises ValueError when the directory holds a run with other settings than this panel was given.
        """
        run = self._run
        if run is not None and self._given != Draft() and (differs := differing(self._given, run)):
            raise ValueError(
                f"{self._path} holds a run with other settings ({differs}). Choose another directory for the new "
                f"run, or leave the settings out to go on with that one."
            )
        if run is None or run.status().phase in (Phase.STOPPED, Phase.ERROR):
            self.start()
        return self.wait(timeout)

    def new_run(self, run_dir: Path | str | None = None) -> None:
        """Leave the run as it is, and begin another with its settings in another directory."""
        if self.training is not None and self._running:
            raise ValueError("This run goes on. Stop it first, or make another panel on another directory.")
        self.stop_trying()
        self._path = Path(run_dir) if run_dir is not None else views.next_directory(self._path)
        self._given = self._steps.draft
        self.publish(training=None, locked=False, at="settings", problem={}, note="")
        self._show()

    def merge(self) -> Path:
        """Merge the adapter into its base, beside the run, and prove that it answers alike."""
        return self._here("merge", self._merge)

    def gguf(self) -> Path:
        """Write the merged model as a GGUF file, beside the run, and prove that it answers alike."""
        return self._here("gguf", self._gguf)

    def card(self) -> None:
        """Write the model card beside the adapter."""
        self._here("card", self._card)

    def try_out(self, question: str | None = None) -> ComparePanel:
        """Serve base and adapter from this session, and ask both the same, side by side; the panel below is returned.

        question: asked at once; None leaves the first held-out question in the field.
        """
        sides = self._here("try", self._serve)
        if question is not None:
            with self.watched_here():
                sides.ask(question)
        return sides

    def stop_trying(self) -> None:
        """End the server of `try_out`, and give its memory back."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.stop()
        self.sides = None

    def close(self) -> None:
        self.stop_trying()
        super().close()

    def actions(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        long: dict[str, Callable[[], Any]] = {
            "check": self._check,
            "probe": self._measure,
            "apply": self.apply_change,
            "start": self.start,
            "merge": self._merge,
            "gguf": self._gguf,
            "card": self._card,
            "try": self._serve,
            "stop_trying": self.stop_trying,
        }
        return {
            "goto": lambda message: self._goto(str(message.get("step"))),
            "set": lambda message: self._typed(str(message.get("name")), message.get("value")),
            "map": lambda message: self._map({str(message.get("name")): str(message.get("value") or "")}),
            "suggested": lambda _: self._map(self._suggested),
            "directory": lambda message: self._move(str(message.get("value") or "")),
            "new": lambda _: self.new_run(),
            **{name: self._worker(name, do) for name, do in long.items()},
        }

    def static_html(self) -> str:
        steps = self._steps
        parts = views.static_parts(
            steps.looked[1] if steps.looked is not None else None,
            steps.fit[1] if steps.fit is not None else None,
            steps.probed.peak if steps.probed is not None else None,
            self.training.static_html() if self.training is not None else "",
            self.result,
            self.sides.static_html() if self.sides is not None else "",
        )
        return views.static_frame(self.title, self._state_words, parts, self.problem)

    def static_text(self) -> str:
        told = self.training.static_text() if self.training is not None else self._state_words
        return f"FineTunePanel({self.title}: {told})"

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _run(self) -> Run | None:
        return self.training.training if self.training is not None else None

    @property
    def _running(self) -> bool:
        run = self._run
        return run is not None and not run.status().phase.final

    @property
    def _state_words(self) -> str:
        run = self._run
        return self.training.phase_text if self.training is not None and run is not None else "not started"

    def _here(self, name: str, function: Callable[[], Result]) -> Result:
        """Do it in the cell that runs, which keeps what the panel shows at its end. name: in _BUSY."""
        with self.watched_here():
            self.publish(busy=_BUSY[name], problem={})
            try:
                return function()
            finally:
                self.busy = ""

    def _work(self, name: str, function: Callable[[], Any]) -> None:
        """Do what takes long in a thread: a button's message must not hold up the next one. name: in _BUSY."""
        with self._lock:
            if self.busy:
                raise ValueError(f"One thing after the other: {self.busy[0].lower()}{self.busy[1:]}, wait for it.")
            self.publish(busy=_BUSY[name], problem={})
        threading.Thread(target=self._worked, args=(function,), name="ipytune-work", daemon=True).start()

    def _worker(self, name: str, function: Callable[[], Any]) -> Callable[[dict[str, Any]], None]:
        """What a button calls."""
        return lambda message: self._work(name, function)

    def _worked(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:  # a thread's exception would be seen by nobody
            self.fail(error)
        finally:
            self.busy = ""

    def _goto(self, step: str) -> None:
        if step not in STEPS:
            raise ValueError(f"{step!r} is no step. There are: {', '.join(STEPS)}.")
        self.at = step
        if step == "memory" and not self.busy and not self._steps.draft.errors:
            self._work("estimate", self._estimate)

    def _typed(self, name: str, given: Any) -> None:
        self.set(name, form.as_typed(name, given))

    @property
    def _suggested(self) -> dict[str, str]:
        found = self._steps.columns
        return dict(found.guessed.columns) if found is not None else {}

    def _map(self, names: Mapping[str, str]) -> None:
        self._refuse_if_locked()
        self._steps.map_columns(names)
        self._show()

    def _move(self, directory: str) -> None:
        if not directory.strip():
            raise ValueError("A run needs a directory. Type one, for example runs/first.")
        self._path = Path(directory.strip())
        self._adopt_existing()
        self._show()

    def _adopt_existing(self) -> None:
        try:
            run = Run.open(self._path)
        except FileNotFoundError:
            return
        self._steps.draft = Draft.of(run.config)
        self._adopt(TrainingPanel(run, launcher=self._launcher))
        self.at = "adapter" if run.status().phase is Phase.COMPLETED else "training"
        if self._given != Draft() and differing(self._given, run):
            self.note = "This directory holds a run already: it is shown with its own settings."

    def _adopt(self, training: TrainingPanel) -> None:
        self.publish(training=training, locked=True)
        training.observe(lambda _: self._show(), "phase")

    def _refuse_if_locked(self) -> None:
        if self.locked:
            raise ValueError("These are the settings of the run. For others begin a new run.")

    def _check(self) -> Look:
        found = self._steps.check()
        self._show()
        return found

    def _estimate(self) -> Fit:
        fit = self._steps.estimate()
        self._show()
        return fit

    def _measure(self) -> Probe:
        config = self.config
        self._estimate()
        measured = self._steps.measure(config)
        self._show()
        return measured

    def _merge(self) -> Path:
        run, out = self._finished, views.merged_path(self._path)
        take_out.merge(run.path, out)
        self._show()
        return out

    def _gguf(self) -> Path:
        run, merged, out = self._finished, views.merged_path(self._path), views.gguf_path(self._path)
        if not merged.is_dir():
            self._merge()
        take_out.gguf(run.path, merged, out)
        self._show()
        return out

    def _card(self) -> None:
        take_out.card(self._finished.path)
        self._show()

    def _serve(self) -> ComparePanel:
        run = self._finished
        self.stop_trying()
        server = serve(run.config.model, run=run, progress=lambda line: setattr(self, "busy", line))
        system, question = self._steps.first_words(run)
        with self._lock:
            self._server = server
        sides = ComparePanel(
            server.endpoints, question, system=system or None, temperature=0, max_tokens=256, remember=False
        )
        self.sides = sides
        return sides

    @property
    def _finished(self) -> Run:
        run = self._run
        if run is None or self.adapter is None or self._running:
            raise ValueError("There is no adapter yet. It is there once the training has ended or was stopped.")
        return run

    def _show(self) -> None:
        steps, run, adapter = self._steps, self._run, self.adapter
        draft, current = steps.draft, steps.current_look
        shown = {
            "title": str(self._path),
            "data_fields": form.shown(form.DATA, draft),
            "settings_fields": form.shown(form.SETTINGS, draft),
            "more_fields": form.shown(form.MORE, draft),
            "columns": views.columns(steps.columns, draft),
            "found": views.found(steps.looked[1], current is not None) if steps.looked is not None else {},
            "memory": views.memory(steps.fit[1], steps.probed, steps.fits_now) if steps.fit is not None else {},
            "result": views.result(run, adapter) if run is not None and adapter is not None else {},
        }
        shown["steps"] = views.steps(
            draft.errors,
            current,
            steps.fit[1] if steps.fit is not None else None,
            run.status().phase if run is not None else None,
            adapter is not None,
        )
        self.publish(**shown)
