"""lm-eval as a child: its arguments and environment, what is refused before anything is asked, and how it ends.

lm-eval itself is not needed: a stand-in of its name takes the arguments and says what it got.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipytune.endpoints import BadRequest, Endpoint, KeyMissing
from ipytune.evaluate import lm_eval
from ipytune.evaluate.lm_eval import LmEvalFailed, arguments, environment, refusal
from ipytune.mock import Behaviour, start_mock

KEY = "marker-SECRET-4711"
ENDPOINT = Endpoint(name="e", base_url="http://127.0.0.1:9", model="org/model", key_env="LAB_KEY")

STAND_IN = """
    import json, os, pathlib, sys
    argv = sys.argv[1:]
    out = pathlib.Path(argv[argv.index("--output_path") + 1])
    print("asking with", os.environ["OPENAI_API_KEY"], flush=True)
    if "broken" in argv[argv.index("--tasks") + 1]:
        sys.exit("it broke")
    (out / "results_now.json").write_text(json.dumps({"results": {"gsm8k": {"acc": 0.5}}, "argv": argv}))
"""
TASKS = """
    class Task:
        def __init__(self, kind): self.OUTPUT_TYPE = kind
    class TaskManager:
        def __init__(self, include_path=None): pass
    KINDS = {"gsm8k": "generate_until", "broken": "generate_until", "hellaswag": "multiple_choice"}
    def get_task_dict(names, manager):
        found = {}
        for name in names:
            if name == "mmlu":
                found["group"] = {"part": Task("multiple_choice")}
            elif name in KINDS:
                found[name] = Task(KINDS[name])
            else:
                raise KeyError(name)
        print("a line of its own")
        return found
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(STAND_IN))
    (package / "tasks.py").write_text(textwrap.dedent(TASKS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("LAB_KEY", KEY)
    return tmp_path / "out"


def test_chat_arguments_are_those_of_lm_eval() -> None:
    made = arguments(ENDPOINT, ["gsm8k", "ifeval"], Path("/out"), concurrency=4, limit=10, num_fewshot=2)
    fields = made[made.index("--model_args") + 1].split(",")
    assert made[:2] == ["--model", "local-chat-completions"] and "--apply_chat_template" in made
    assert "base_url=http://127.0.0.1:9/v1/chat/completions" in fields and "model=org/model" in fields
    assert "num_concurrent=4" in fields and made[made.index("--tasks") + 1] == "gsm8k,ifeval"
    assert made[made.index("--limit") + 1] == "10" and made[made.index("--num_fewshot") + 1] == "2"


def test_completions_arguments_have_no_chat_template() -> None:
    made = arguments(ENDPOINT, ["hellaswag"], Path("/out"), chat=False, tokenizer="org/tokenizer")
    assert made[1] == "local-completions" and "--apply_chat_template" not in made
    assert "tokenizer=org/tokenizer" in made[made.index("--model_args") + 1]
    assert "/v1/completions" in made[made.index("--model_args") + 1]


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_the_names_arguments_parse_back_or_are_refused(model: str, task: str) -> None:
    endpoint = Endpoint(name="e", base_url="http://127.0.0.1:9", model=model)
    try:
        made = arguments(endpoint, [task], Path("/out"))
    except ValueError:
        return
    fields = dict(item.split("=") for item in made[made.index("--model_args") + 1].split(","))
    assert fields["model"] == model and made[made.index("--tasks") + 1] == task


def test_the_key_is_in_the_environment_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    assert KEY not in " ".join(arguments(ENDPOINT, ["gsm8k"], Path("/out")))
    assert environment(ENDPOINT, {"OPENAI_API_KEY": "another", "HOME": "/h"}) == {"OPENAI_API_KEY": KEY, "HOME": "/h"}
    without = ENDPOINT.model_copy(update={"key_env": None})
    assert environment(without, {"OPENAI_API_KEY": "another"}) == {"OPENAI_API_KEY": "none"}
    monkeypatch.delenv("LAB_KEY")
    with pytest.raises(KeyMissing):
        environment(ENDPOINT, {})


@pytest.mark.parametrize("kind", ["multiple_choice", "loglikelihood", "loglikelihood_rolling"])
def test_probabilities_of_given_text_need_completions_with_echo(kind: str) -> None:
    kinds = {"gsm8k": "generate_until", "hellaswag": kind}
    refused = refusal(ENDPOINT, kinds, chat=True, prompt_logprobs=None)
    assert refused is not None and "hellaswag: not possible through chat" in str(refused)
    assert "gsm8k" not in refused.what
    refused = refusal(ENDPOINT, kinds, chat=False, prompt_logprobs=False)
    assert refused is not None and "vLLM" in refused.remedy
    assert refusal(ENDPOINT, kinds, chat=False, prompt_logprobs=True) is None
    assert refusal(ENDPOINT, {"gsm8k": "generate_until"}, chat=True, prompt_logprobs=None) is None


def test_whether_a_server_scores_prompts_is_asked_of_it() -> None:
    with start_mock(Behaviour(), process=False) as mock:
        assert lm_eval.gives_prompt_logprobs(mock.endpoint())
    with start_mock(Behaviour(refuses=("echo",)), process=False) as mock:
        assert not lm_eval.gives_prompt_logprobs(mock.endpoint())


def test_without_lm_eval_the_command_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"-m pip install 'lm-eval\[api\]'"):
        lm_eval.run(ENDPOINT, ["gsm8k"], tmp_path)


def test_a_run_gives_its_results_and_hides_the_key(stand_in: Path) -> None:
    said: list[str] = []
    found = lm_eval.run(ENDPOINT, ["gsm8k"], stand_in, on_line=said.append, limit=3)
    assert found.tasks == {"gsm8k": {"acc": 0.5}}
    assert said == ["asking with •••"]
    assert KEY not in json.dumps(json.loads(found.path.read_text()))


def test_tasks_that_cannot_be_are_refused_before_the_run(stand_in: Path) -> None:
    for tasks in (["hellaswag"], ["gsm8k", "mmlu"]):
        with pytest.raises(BadRequest, match="not possible through chat"):
            lm_eval.run(ENDPOINT, tasks, stand_in)
    with pytest.raises(LmEvalFailed, match="does not know these tasks: nonsense"):
        lm_eval.run(ENDPOINT, ["nonsense"], stand_in)
    assert not stand_in.exists()


def test_a_child_that_fails_is_told_with_its_last_lines_and_no_key(stand_in: Path) -> None:
    with pytest.raises(LmEvalFailed, match="exit code 1") as error:
        lm_eval.run(ENDPOINT, ["broken"], stand_in)
    assert "it broke" in str(error.value) and KEY not in str(error.value)


def test_another_python_is_asked_whether_it_has_it(tmp_path: Path) -> None:
    lonely = tmp_path / "python"
    lonely.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    lonely.chmod(0o755)
    with pytest.raises(ModuleNotFoundError, match="is not installed for"):
        lm_eval.installed(str(lonely))
