"""Pictures of the evaluation and the load panel, over the mock server: what it answers and how quickly is known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ipytune.mock import Behaviour, MockServer, start_mock
from tests.browser.lab import browser_page, lab_server, open_notebook, panel, run_cell

_QUESTIONS = 60
_IMPORTS = (
    "from ipytune.endpoints import Endpoint\nfrom ipytune.load import Plan\nfrom ipytune.widgets import {panel}\n"
)


def _questions() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Requests for a header, the expected one, the answers: right a third of the time, and nearly always."""
    for n in range(_QUESTIONS):
        nodes, hours = 1 + n % 8, 1 + n // 8
        right = f"#SBATCH --nodes={nodes}\n#SBATCH --time={hours:02}:00:00"
        asked = f"{nodes} node{'s' if nodes > 1 else ''} for {hours} hour{'s' if hours > 1 else ''}, please."
        wrong = f"#SBATCH -N {nodes}\n#SBATCH -t {hours}"
        yield asked, right, {"base": right if n % 3 == 0 else wrong, "tuned": right if n % 20 else wrong}


def take_measuring_screenshots(out_dir: Path) -> list[Path]:
    """evaluation-panel.png of two models, load-panel.png of a server with eight slots. A minute; needs chromium."""
    out_dir.mkdir(parents=True, exist_ok=True)
    pictures = [out_dir / "evaluation-panel.png", out_dir / "load-panel.png"]
    known = {asked: told for asked, _, told in _questions()}
    server = Behaviour(models=("base", "tuned"), answers=known, tokens=24, ttft=0.06, itl=0.008, jitter=0.004, slots=8)
    with (
        tempfile.TemporaryDirectory(prefix="panels-", ignore_cleanup_errors=True) as folder,
        start_mock(server) as mock,
        lab_server(Path(folder)) as lab,
        browser_page(width=1060, height=1500) as page,
    ):
        lines = (
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": expected}]}
            for asked, expected, _ in _questions()
        )
        (lab.folder / "held-out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, cell, picture in (
            ("Evaluation", _evaluation(mock), pictures[0]),
            ("Load", _load(mock), pictures[1]),
        ):
            lab.write_notebook(f"{name}.ipynb", [cell])
            open_notebook(page, lab, f"{name}.ipynb")
            run_cell(page, 0)
            shown = panel(page, name).first
            shown.get_by_role("button", name="Start").click()
            shown.get_by_role("status").filter(has_text="completed").wait_for(timeout=180_000)
            shown.screenshot(path=picture)
    return pictures


def _endpoint(mock: MockServer, model: str) -> str:
    return f"Endpoint(name={model!r}, base_url={mock.url!r}, model={model!r})"


def _evaluation(mock: MockServer) -> str:
    both = ", ".join(_endpoint(mock, model) for model in ("base", "tuned"))
    scorers = "['exact', 'contains:#SBATCH --nodes']"
    return _IMPORTS.format(panel="EvaluationPanel") + (
        f"panel = EvaluationPanel('held-out.jsonl', [{both}], {scorers})\npanel"
    )


def _load(mock: MockServer) -> str:
    plan = "Plan(concurrency=(1, 2, 4, 8, 16), duration=4, output_tokens=24, objectives={'ttft': 0.3})"
    return _IMPORTS.format(panel="LoadPanel") + f"panel = LoadPanel({_endpoint(mock, 'tuned')}, {plan})\npanel"
