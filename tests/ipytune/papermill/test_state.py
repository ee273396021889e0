"""Variables come back as they were: shared where they were shared, live where they are functions, never a secret."""

from __future__ import annotations

import json
import os
import pickletools
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from ipytune.papermill.snapshot.keeper import Keeper
from ipytune.papermill.snapshot.storage import RECORD, Store
from ipytune.papermill.state import State, StateUnavailable, new_run


class Kernels:
    """Two kernels in turn, as far as a snapshot sees them: a shell with a namespace."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.left: dict[str, str] = {}
        self.limits: dict[str, Any] = {"largest": 10**8, "altogether": 10**8, "seconds": 60}
        self.begin()

    def begin(self) -> None:
        self.shell = SimpleNamespace(user_ns={"__name__": "__main__"}, user_ns_hidden={}, execution_count=1)
        self.keeper: Any = Keeper(Store(self.directory), **self.limits)

    @property
    def names(self) -> dict[str, Any]:
        return self.shell.user_ns

    def run(self, cell: int, source: str) -> dict[str, Any]:
        exec(source, self.names)
        record: dict[str, Any] = self.keeper.save(cell)
        self.left = {name: entry["left"] for name, entry in record["names"].items() if "left" in entry}
        return record

    def again(self, without: tuple[str, ...] = (), first: int | None = None) -> dict[str, str]:
        self.begin()
        record = json.loads((self.directory / RECORD).read_text())
        failed: dict[str, str] = self.keeper.restore(record, without, record["cell"] + 1 if first is None else first)
        return failed


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    monkeypatch.chdir(tmp_path)
    found: list[Kernels] = []
    monkeypatch.setattr("IPython.get_ipython", lambda: found[0].shell)
    made = Kernels.__new__(Kernels)
    found.append(made)
    made.shell = SimpleNamespace(user_ns={}, user_ns_hidden={}, execution_count=1)
    made.__init__(tmp_path / "kept")  # type: ignore[misc]
    return made


def test_what_was_one_object_is_one_again(kernels: Kernels) -> None:
    kernels.run(0, "a = [1]; b = {'a': a}; c = (a, 'text'); other = [1]")
    kernels.again()
    kernels.names["a"].append(2)
    assert kernels.names["b"] == {"a": [1, 2]}
    assert kernels.names["c"][0] is kernels.names["a"]
    assert kernels.names["other"] == [1]


def test_an_optimizer_goes_on_with_the_parameters_of_its_model(kernels: Kernels) -> None:
    kernels.run(
        0,
        "import torch\n"
        "model = torch.nn.Linear(300, 300)\n"
        "optimizer = torch.optim.AdamW(model.parameters())\n"
        "loss = model(torch.ones(300)).sum(); loss.backward(); first = model.weight.view(-1)[:3].detach()\n",
    )
    weight, gradient = kernels.names["model"].weight.detach().clone(), kernels.names["model"].weight.grad.clone()
    kernels.again()
    model = kernels.names["model"]
    assert torch.equal(model.weight, weight)
    assert torch.equal(model.weight.grad, gradient)
    kernels.names["optimizer"].step()
    assert not torch.equal(model.weight, weight)
    assert kernels.names["first"].tolist() == model.weight.view(-1)[:3].tolist()  # a view is a view again
    with pytest.raises(RuntimeError, match="does not require grad"):
        kernels.names["loss"].backward()


def test_functions_and_classes_live_in_the_notebook_again(kernels: Kernels) -> None:
    kernels.run(
        0,
        "count = 0\n"
        "def f(by=1):\n    global count\n    count += step(by)\n    return count\n"
        "def step(by): return by\n"
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n"
        "    def now(): return n\n    return up, now\n"
        "up, now = counter(); up()\n"
        "class Base:\n    def who(self): return 'base', count\n"
        "class Child(Base):\n    def who(self): return super().who()\n"
        "child = Child()\n",
    )
    kernels.again()
    names = kernels.names
    assert names["f"](by=2) == 2 and names["count"] == 2
    exec("def step(by): return 10 * by", names)
    assert names["f"]() == 12
    assert (names["up"](), names["now"]()) == (2, 2)
    assert names["child"].who() == ("base", 12)
    assert isinstance(names["child"], names["Child"]) and issubclass(names["Child"], names["Base"])


def test_what_cannot_be_kept_does_not_spoil_the_rest(kernels: Kernels) -> None:
    record = kernels.run(
        0,
        "import threading\nx = 1\nnumbers = (n for n in range(3))\nlock = threading.Lock()\n"
        "stream = open('f', 'w')\nthread = threading.Thread()\nholder = {'x': [x], 'lock': lock}\n",
    )
    assert set(kernels.left) == {"numbers", "lock", "stream", "thread", "holder"}
    assert "cannot pickle" in kernels.left["numbers"]
    handles = {name for name in kernels.left if record["names"][name]["handle"]}
    assert handles == {"lock"}
    kernels.names["stream"].close()
    assert kernels.again() == {}
    assert kernels.names["x"] == 1 and kernels.names["threading"] is threading


def test_a_change_in_place_is_seen_and_what_is_equal_is_not_written_again(kernels: Kernels) -> None:
    kernels.run(0, "import numpy\nbig = numpy.arange(100_000); small = [1]")
    file = next(kernels.directory.glob("*.data"))
    written = file.stat().st_mtime_ns
    record = kernels.run(1, "small[0] = 2")
    assert file.stat().st_mtime_ns == written
    assert record["names"]["big"]["changed"] == [0] and record["names"]["small"]["changed"] == [0, 1]
    record = kernels.run(2, "big[5] = 0")
    assert record["names"]["big"]["changed"] == [0, 2]
    assert not file.exists()  # nothing is left of what no variable holds
    kernels.again()
    assert kernels.names["big"][5] == 0 and kernels.names["small"] == [2]
    kernels.names["big"][6] = 1  # can be written to


def test_random_numbers_and_the_working_directory_go_on(kernels: Kernels, tmp_path: Path) -> None:
    kernels.run(0, "import numpy, os, random, torch\nos.makedirs('below'); random.seed(1); torch.manual_seed(1)")
    kernels.run(1, "os.chdir('below'); x = random.random()")
    draw = "import random; y = random.random(), numpy.random.rand(), torch.rand(1).item()"
    exec(draw, kernels.names)
    drawn = kernels.names["y"]
    kernels.again()
    assert Path.cwd() == tmp_path / "below"
    exec(draw, kernels.names)
    assert kernels.names["y"] == drawn
    kernels.keeper.before(1)
    assert Path.cwd() == tmp_path
    exec("z = random.random()", kernels.names)
    assert kernels.names["z"] == kernels.names["x"]


@pytest.mark.parametrize(
    "source",
    [
        "api_key = 'k' * 20",
        "headers = {'Authorization': f'Bearer {API_TOKEN}'}",
        "import os\nvalue = [os.environ['SOME_TOKEN']]",
        "class Client: pass\nclient = Client(); client.it = API_TOKEN",
        "import numpy\nrows = numpy.array([API_TOKEN])",
        "import numpy\nmany = numpy.array([API_TOKEN] * 20_000)",
        "import numpy\nraw = numpy.frombuffer(API_TOKEN.encode() * 20_000, numpy.uint8)\nsame = [raw]",
    ],
)
def test_secrets_are_not_written(kernels: Kernels, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("SOME_TOKEN", "t0ken-of-the-environment")
    kernels.run(0, f"API_TOKEN = 's3cret-of-a-cell'\n{source}")
    kept = b"".join(file.read_bytes() for file in kernels.directory.iterdir())
    for secret in (b"s3cret-of-a-cell", b"t0ken-of-the-environment", b"k" * 20):
        assert secret not in kept and secret.decode().encode("utf-32-le") not in kept
    assert "API_TOKEN" in kernels.left


def test_words_of_models_are_no_secrets(kernels: Kernels) -> None:
    kernels.run(0, "tokens = 3\nkey = 'validation_loss'\nmetrics = {key: 1}\neos_token = '<|im_end|>'")
    assert kernels.left == {}


def test_variables_of_the_environment_come_back_but_for_secret_ones(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("PLAIN_SETTING", "MY_TOKEN", "MY_HEADER")
    for name in names:
        monkeypatch.setenv(name, "before")
    record = kernels.run(
        0,
        "import os\nos.environ.update(PLAIN_SETTING='1', MY_TOKEN='hidden-value-1', MY_HEADER='Bearer hidden-value-1')",
    )
    assert {name: value for name, value in record["environ"].items() if name in names} == {"PLAIN_SETTING": "1"}
    assert record["secret_environ"] == ["MY_HEADER", "MY_TOKEN"]
    monkeypatch.delenv("PLAIN_SETTING")
    kernels.again()
    assert os.environ["PLAIN_SETTING"] == "1"


def test_limits_leave_out_what_is_over_them(kernels: Kernels) -> None:
    kernels.limits = {"largest": 1000, "altogether": 1500, "seconds": 60}
    kernels.begin()
    kernels.names.update(large=b"x" * 2000, one=b"y" * 900, two=b"z" * 900)
    kernels.run(0, "")
    assert set(kernels.left) >= {"large", "two"} and "one" not in kernels.left
    assert kernels.left["large"] == "it is larger than 0.001 MB"


def test_what_several_variables_hold_counts_once(kernels: Kernels) -> None:
    kernels.limits = {"largest": 10**6, "altogether": 1_500_000, "seconds": 60}
    kernels.begin()
    kernels.run(0, "import numpy\na = numpy.ones(100_000); b = [a]; c = {'a': a}")
    assert kernels.left == {}


def test_only_its_owner_can_read_it(kernels: Kernels) -> None:
    kernels.run(0, "import numpy\nbig = numpy.zeros(100_000)")
    assert stat.S_IMODE(kernels.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in kernels.directory.iterdir()} == {0o600}


def test_a_group_that_cannot_be_read_does_not_spoil_the_rest(kernels: Kernels) -> None:
    record = kernels.run(0, "x = [1]; y = [2]")
    broken = next(group for group in record["groups"] if group["names"] == ["y"])
    (kernels.directory / broken["file"]).write_bytes(b"no pickle")
    failed = kernels.again()
    assert set(failed) == {"y"} and kernels.names["x"] == [1]


def test_a_kernel_that_keeps_nothing_is_told_apart() -> None:
    for answer, said in (
        (None, "no Python, or no cloudpickle"),
        (repr(json.dumps({"error": "disk full"})), "disk full"),
    ):
        with pytest.raises(StateUnavailable, match=said):
            State(SimpleNamespace(ask=lambda code, expression, answer=answer: answer), new_run())


@pytest.fixture
def sent(kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A kernel that knows the modules from what it is sent, not from ipytune."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def ask(code: str, expression: str) -> str:
        exec(code, kernels.names)
        return repr(eval(expression, kernels.names))

    yield SimpleNamespace(ask=ask, packages=lambda: {name for name in sys.modules if name.startswith("_ipytune_state")})
    for name in [name for name in sys.modules if name.startswith("_ipytune_state")]:
        del sys.modules[name]


def test_what_is_sent_is_a_package_of_its_own_and_no_name_of_the_notebook(
    kernels: Kernels, sent: SimpleNamespace, tmp_path: Path
) -> None:
    run, finders = new_run(), list(sys.meta_path)
    state = State(sent, run)
    assert set(kernels.names) == {"__name__", "__builtins__"} and sys.meta_path == finders
    assert {"_ipytune_state", "_ipytune_state.pickling", "_ipytune_state.keeper"} <= sent.packages()
    first = sys.modules["_ipytune_state"]
    exec("count = 1\ndef f(): return count", kernels.names)
    assert state.save(0).left == {}
    directory = tmp_path / "state" / "ipytune" / "resume" / run
    kept = [file.read_bytes() for file in directory.iterdir() if not file.suffix]
    named = {argument for data in kept for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    assert {"_ipytune_state.pickling", "_function"} <= named and not any("ipytune.papermill" in name for name in named)

    kernels.begin()
    state = State(sent, run)  # once more: the package is new, the record is there
    assert sys.modules["_ipytune_state"] is not first and sys.meta_path == finders
    assert (state.look() or pytest.fail()).cell == 0
    assert state.restore((), 1) == {} and kernels.names["f"]() == 1
    state.drop()
    assert not directory.exists()


def test_a_kernel_without_cloudpickle_is_told_apart(
    kernels: Kernels, sent: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    finders = list(sys.meta_path)

    def ask(code: str, expression: str) -> str | None:
        """As a kernel does where the code fails."""
        with pytest.raises(ImportError, match="cloudpickle"):
            sent.ask(code, expression)
        return None

    with pytest.raises(StateUnavailable, match="no cloudpickle"):
        State(SimpleNamespace(ask=ask), new_run())
    assert sys.meta_path == finders and "_ipytune_state" not in sys.modules


def test_a_large_array_is_held_once_for_all_who_have_it(kernels: Kernels) -> None:
    kernels.run(0, "import numpy\na = numpy.ones(100_000); b = [a]; c = a.copy()")
    assert sum(file.stat().st_size for file in kernels.directory.iterdir()) < 1_000_000
    kernels.again()
    assert kernels.names["b"][0] is kernels.names["a"] and kernels.names["c"] is not kernels.names["a"]
    assert isinstance(kernels.names["a"], numpy.ndarray)


def test_an_object_that_holds_the_notebooks_variables_holds_them_again(kernels: Kernels) -> None:
    kernels.run(
        0, "class Lesson:\n    def __init__(self, names): self.names = names\nlesson = Lesson(globals()); x = 1"
    )
    assert kernels.left == {}
    kernels.again()
    kernels.names["x"] = 2
    assert kernels.names["lesson"].names["x"] == 2


def test_a_clock_inside_is_no_change(kernels: Kernels) -> None:
    clock = (
        "import time\nclass Clock:\n    def __init__(self): self.began = time.monotonic()\n"
        "    def __getstate__(self): return {'began': time.monotonic() - self.began}\nclock = Clock()"
    )
    kernels.run(0, clock)
    assert kernels.run(1, "x = 1")["names"]["clock"]["changed"] == [0]
    kernels.again()
    assert kernels.run(2, "x = 2")["names"]["clock"]["changed"] == [0]
    assert kernels.run(3, "clock = Clock()")["names"]["clock"]["changed"] == [0, 3]


def test_what_was_of_later_cells_is_forgotten(kernels: Kernels) -> None:
    kernels.run(0, "x = 1; y = 1")
    kernels.run(1, "x = 2")
    kernels.again(without=("x",), first=1)
    assert "x" not in kernels.names and kernels.names["y"] == 1
    record = kernels.run(1, "z = 1; x = 3")
    assert record["names"]["x"]["changed"] == [0, 1] and record["names"]["y"]["changed"] == [0]
