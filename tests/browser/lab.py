"""JupyterLab as a user sees it: a server of its own, a notebook in it, headless Chromium before it.

`take_panel_screenshots` makes the pictures of the panels for the documentation, from real runs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nbformat
from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from ipytune.lora.config import RunConfig
from tests.browser.fixtures import CHROMIUM

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_START_SECONDS = 90.0


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a condition that no page event announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {seconds:g} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab; notebooks lie in `folder`."""

    url: str
    token: str
    folder: Path

    def write_notebook(self, name: str, cells: Sequence[str]) -> None:
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, self.folder / name)


@contextmanager
def lab_server(folder: Path, dark: bool = False, environment: dict[str, str] | None = None) -> Iterator[Lab]:
    """JupyterLab on a free port of this machine, with its own settings; gone, with its kernels, at the end."""
    private = Path(tempfile.mkdtemp(prefix="lab-"))
    settings = private / "config" / "lab" / "user-settings" / "@jupyterlab"
    (settings / "apputils-extension").mkdir(parents=True)
    # Else a question about news lies over the notebook.
    (settings / "apputils-extension" / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    # Else cells out of sight leave the page, and with them the panels that a test looks for.
    (settings / "notebook-extension").mkdir()
    (settings / "notebook-extension" / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    (settings / "apputils-extension" / "themes.jupyterlab-settings").write_text(json.dumps(theme))
    token = secrets.token_hex(16)
    env = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(private / "config" / "lab" / "user-settings"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
        "JUPYTER_TOKEN": token,
        **(environment or {}),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (private / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Lab(url=_wait_for_lab(process, private, token), token=token, folder=folder)
    finally:
        process.send_signal(signal.SIGTERM)  # the server ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(private, ignore_errors=True)


def _wait_for_lab(process: subprocess.Popen[bytes], private: Path, token: str) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        for record in (private / "runtime").glob("jpserver-*.json"):
            url = json.loads(record.read_text())["url"]
            try:
                if httpx.get(f"{url}api/status?token={token}", trust_env=False).status_code == 200:
                    return str(url)
            except httpx.TransportError:
                pass
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{(private / 'log').read_text()[-2000:]}")


@contextmanager
def browser_page(width: int = 1280, height: int = 1000) -> Iterator[Page]:
    """A page of headless Chromium; what its console reports as an error is printed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2)
        page.on("console", lambda message: print("console:", message.text) if message.type == "error" else None)
        try:
            yield page
        finally:
            browser.close()


def open_notebook(page: Page, lab: Lab, name: str) -> None:
    """Open it alone, without the file browser, and wait for its kernel."""
    page.goto(f"{lab.url}doc/tree/{name}?token={lab.token}&reset")
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=90_000)


def run_cell(page: Page, number: int, seconds: float = 60) -> None:
    """Run one cell, counted from 0, as Shift+Enter in it does, and wait for its end.

    JupyterLab forgets a cell that is run while the kernel is only just connecting, so one that is neither running nor
    has run is asked again. A dialog of JupyterLab's own that lies over the notebook (about the kernel, on a machine
    under load) is answered with what it proposes, as a user would, and printed.
    """
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()

    def has_run() -> bool:
        answer_dialog(page)
        now = prompt.inner_text()
        if now == before or not now.strip("[]: "):
            try:
                cell.locator(".cm-content").click(timeout=2000)
                cell.locator(".cm-focused").wait_for(timeout=2000)
            except PlaywrightTimeout:  # something lies over it; the next round looks what
                return False
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(300)  # let the prompt follow before it is read again
            return False
        return "*" not in now

    until(has_run, f"the end of cell {number}", seconds)
    failed = cell.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")
    if failed.count():
        raise AssertionError(f"cell {number} failed:\n{failed.first.inner_text()[-2000:]}")


def answer_dialog(page: Page) -> None:
    """Press the proposed button of a dialog of JupyterLab's own, where one is open, and print what it said."""
    dialog = page.locator("dialog.jp-Dialog")
    if dialog.count():
        print("dialog:", dialog.last.inner_text())
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)  # let it go before the next look


def panel(page: Page, label: str) -> Locator:
    """The panel with this label (its aria-label)."""
    return page.locator(f"section.ipt-panel[aria-label='{label}']")


def take_guided_screenshot(out_dir: Path) -> Path:
    """finetune-panel.png: the data of the first task, checked. Half a minute; needs chromium."""
    out_dir.mkdir(parents=True, exist_ok=True)
    picture = out_dir / "finetune-panel.png"
    cell = (
        "from ipytune.widgets import FineTunePanel\n"
        'panel = FineTunePanel("runs/headers", train_file="headers.jsonl", eval_file="held-out.jsonl")\npanel'
    )
    task = RunConfig.first_task()
    assert task.eval_file is not None
    with tempfile.TemporaryDirectory(prefix="panels-", ignore_cleanup_errors=True) as folder:
        shutil.copy(task.train_file, Path(folder) / "headers.jsonl")
        shutil.copy(task.eval_file, Path(folder) / "held-out.jsonl")
        with lab_server(Path(folder)) as lab, browser_page(width=1060, height=1600) as page:
            lab.write_notebook("guided.ipynb", [cell])
            open_notebook(page, lab, "guided.ipynb")
            run_cell(page, 0)
            shown = panel(page, "Fine-tuning, step by step")
            shown.get_by_role("button", name="Check the data").click()
            shown.locator(".ipt-batch mark").first.wait_for(timeout=120_000)
            shown.screenshot(path=picture)
    return picture


_PICTURED = [
    "from ipytune.endpoints.serve import serve\n"
    "from ipytune.evaluate.exact import load_examples\n"
    "from ipytune.lora.config import RunConfig\n"
    "from ipytune.widgets import ComparePanel, TrainingPanel\n"
    "config = RunConfig.first_task(smoke=SMOKE)\n"
    "system = load_examples(config.train_file)[0].messages[0].content",
    'panel = TrainingPanel(config, "slurm-headers")\npanel',
    "report = panel.run()",
    'server = serve("smollm2-135m-instruct", run=panel.training)',
    "sides = ComparePanel(server.endpoints, system=system, temperature=0, max_tokens=64)\nsides",
    'views = sides.ask("two nodes, four GPUs each, three hours, partition normal")',
    "server.stop()",
]


def take_panel_screenshots(out_dir: Path, smoke: bool = False) -> list[Path]:
    """training-panel.png in the middle of a real run, endpoint-panel.png with the answers of base and tuned model.

    About five minutes on two cores; smoke trains shorter, and its tuned answer may be wrong. Needs chromium.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    pictures = [out_dir / "training-panel.png", out_dir / "endpoint-panel.png"]
    folder = Path(tempfile.mkdtemp(prefix="panels-"))
    try:
        with lab_server(folder) as lab, browser_page(width=1060) as page:
            lab.write_notebook("panels.ipynb", [_PICTURED[0].replace("SMOKE", str(smoke)), *_PICTURED[1:]])
            open_notebook(page, lab, "panels.ipynb")
            run_cell(page, 0)
            run_cell(page, 1)
            training = panel(page, "Fine-tuning")
            training.get_by_role("button", name="Start").click()
            page.wait_for_function("parseInt(document.querySelector('.ipt-bar').ariaValueNow) >= 60", timeout=600_000)
            training.screenshot(path=pictures[0])
            run_cell(page, 2, seconds=900)
            for number in (3, 4, 5):
                run_cell(page, number, seconds=300)
            panel(page, "Answers side by side").screenshot(path=pictures[1])
            run_cell(page, 6)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return pictures
