"""What makes a run fail: numbers out of bounds, budgets, cells that did not run, leaks, expired skips; and what may run
beside what."""

from __future__ import annotations

import datetime
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks.executed import findings_of_execution
from tests.notebooks.expectations import Bounds, expectations_of, findings_of_metrics, over_budget
from tests.notebooks.leaks import findings_of_leaks
from tests.notebooks.schedule import Demand, in_order, next_to_start
from tests.notebooks.skips import read_skips, skip_of


def test_numbers_are_held_against_their_bounds() -> None:
    metrics = {"loss": 0.5, "run": {"losses": [3.0, 1.0], "done": True}, "n": 4, "nan": float("nan")}
    good = {
        "loss": Bounds(max=0.5),
        "run.losses.1": Bounds(min=1, max=1),
        "n": Bounds(equals=4),
        "run.done": Bounds(equals=True),
    }
    assert findings_of_metrics(metrics, good) == []
    bad = {
        "loss": Bounds(min=0.6),
        "run.losses.2": Bounds(min=0),
        "n": Bounds(equals=True),
        "run.done": Bounds(min=0),
        "nan": Bounds(max=1),
    }
    assert findings_of_metrics(metrics, bad) == [
        "loss = 0.5 is less than 0.6",
        "metrics.json has no run.losses.2",
        "n = 4 is not True",
        "run.done = True is no number",
        "nan = nan is no number",
    ]


def test_expectations_are_refused_when_they_expect_nothing(tmp_path: Path) -> None:
    notebook, file = tmp_path / "01-x.ipynb", tmp_path / "01-x.expect.yaml"
    with pytest.raises(ValueError, match="01-x.expect.yaml is missing"):
        expectations_of(notebook)
    for metrics in ("", ", metrics: {}", ", metrics: {a: {}}", ", metrics: {a: {most: 1}}"):
        file.write_text(f"{{seconds: 3, memory_gb: 1{metrics}}}")
        with pytest.raises(ValueError, match="01-x.expect.yaml"):
            expectations_of(notebook)
    file.write_text("{seconds: 3, memory_gb: 1, metrics: {a: {min: 0}}}")
    assert expectations_of(notebook).cores == 2


def test_a_budget_is_a_note_until_it_is_missed_by_far() -> None:
    assert over_budget("time", 99, 100, "s") == ([], [])
    assert over_budget("time", 150, 100, "s") == ([], ["time: 150.0 s, the budget is 100"])
    assert over_budget("time", 201, 100, "s") == (["time: 201.0 s, the budget is 100"], [])


def executed(*counts: int | None, text: str = "fine") -> NotebookNode:
    cells = []
    for place, count in enumerate(counts):
        output = nbformat.v4.new_output("stream", text=text)
        cells.append(nbformat.v4.new_code_cell("x", id=f"cell-{place:02d}", execution_count=count, outputs=[output]))
    return nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(" "), nbformat.v4.new_markdown_cell("m")])


def test_each_code_cell_must_have_run_in_order_and_without_an_error() -> None:
    assert findings_of_execution(executed(1, 2, 5)) == []
    assert findings_of_execution(executed(1, None, 2)) == ["cell-01 did not run"]
    assert findings_of_execution(executed(2, 1)) == ["cell-01 ran out of order: [1] after [2]"]
    assert findings_of_execution(executed()) == ["no cell ran"]
    notebook = executed(1)
    notebook.cells[0].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))
    assert findings_of_execution(notebook) == ["cell-00: ValueError: no"]


def test_a_panel_must_be_seen_without_a_kernel() -> None:
    notebook = executed(1)
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "TrainingPanel()"}
    notebook.cells[0].outputs.append(nbformat.v4.new_output("display_data", data=data))
    assert findings_of_execution(notebook) == ["cell-00 shows a widget without a static picture of it"]
    notebook.cells[0].outputs[-1].data["text/html"] = "<svg/>"
    assert findings_of_execution(notebook) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Authorization: Bearer abcdef0123456789abcdef", "a bearer token"),
        ("hf_abcdefghijklmnopqrstuvwx", "Hugging Face"),
        ("sk-abcdefghijklmnopqrstuvwx", "an API key"),
        ("AKIAABCDEFGHIJKLMNOP", "AWS"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc", "JSON web token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ('{"api_key": "0123456789abcdef0123456789"}', "a named secret"),
        ("HUB_TOKEN=0123456789abcdef0123456789", "a named secret"),
        ("here: canary-4711", "a secret of the environment"),
        ("saved to /home/mcnulty/run", "an absolute path: /home/mcnulty"),
        ("File '/tmp/ipykernel_1/2.py'", "an absolute path: /tmp/ipykernel_1"),
        ("in /srv/runs/7/out", "an absolute path: /srv/runs/7"),
    ],
)
def test_secrets_and_absolute_paths_are_found(text: str, what: str) -> None:
    (found,) = findings_of_leaks(executed(1, text=text), ["canary-4711"], ["/srv/runs/7"])[:1]
    assert found.startswith("cell-00 shows") and what in found
    assert "0123456789abcdef" not in found and "abcdefghijklmnop" not in found


@pytest.mark.parametrize(
    "text",
    [
        "tokens: 10714, total_tokens=12345678901234567890",
        "key_env: OPENAI_API_KEY, token: …",
        "https://hub.example.org/users/me and results in 01-first-session/run",
        "sha256: 3b1f0c9e5d7a4b2c8e6f1a0d9c7b5e3f, /dev/shm, /proc/cpuinfo",
        "Bearer of good news, who carries-the-torch",
    ],
)
def test_what_only_resembles_them_is_not(text: str) -> None:
    assert findings_of_leaks(executed(1, text=text)) == []


def test_the_state_of_widgets_is_searched_too() -> None:
    notebook = executed(1)
    notebook.metadata.widgets = {"x": {"state": {"1": {"state": {"_esm": "/home/me/x", "shown": "/home/me/run"}}}}}
    assert findings_of_leaks(notebook) == ["the state of a widget shows an absolute path: /home/me"]


def test_a_skip_has_a_reason_and_an_end(tmp_path: Path) -> None:
    file = tmp_path / "skip.yaml"
    assert read_skips(file, []) == []
    file.write_text("- {notebook: 09-x, profile: smoke, reason: waits for a wheel, expires: 2030-01-31}")
    (skip,) = skips = read_skips(file, ["09-x"])
    assert not skip.expired(datetime.date(2030, 1, 31)) and skip.expired(datetime.date(2030, 2, 1))
    assert skip_of("09-x", "smoke", skips) is skip and skip_of("09-x", "gpu", skips) is None
    with pytest.raises(ValueError, match="does not exist: 09-x"):
        read_skips(file, ["01-y"])
    file.write_text("- {notebook: 09-x, profile: smoke, reason: later}")
    with pytest.raises(ValueError, match=r"skip\.yaml"):
        read_skips(file, ["09-x"])


def demand(name: str, seconds: float = 60, memory_gb: float = 2, cores: int = 2) -> Demand:
    return Demand(name, seconds, memory_gb, cores)


def test_the_longest_goes_first_and_each_has_cores_of_its_own() -> None:
    short, long, single = demand("a", 30), demand("b", 90), demand("c", 20, cores=1)
    waiting = in_order([short, long, single])
    assert [one.name for one in waiting] == ["b", "a", "c"]
    assert next_to_start(waiting, [], {0, 1}, 16) == (long, (0, 1))
    assert next_to_start([short, single], [long], set(), 16) is None, "never two on the same cores"
    assert next_to_start([short, single], [single], {1}, 16) == (single, (1,)), "two that want one core each"
    assert next_to_start([short, single], [long], {2, 3, 4}, 16) == (short, (2, 3))


def test_memory_is_shared_and_what_fits_nowhere_runs_alone() -> None:
    large = demand("a", memory_gb=12)
    assert next_to_start([large], [demand("b")], {2, 3}, 8) is None
    assert next_to_start([large], [], {0, 1}, 8) == (large, (0, 1))
    assert next_to_start([demand("c", cores=4)], [], {0}, 8) == (demand("c", cores=4), (0,))
