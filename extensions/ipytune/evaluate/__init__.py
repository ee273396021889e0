"""Evaluation: a data set asked of endpoints, scored, compared, reported; and exact match of a model on this machine.

    from ipytune.evaluate import evaluate

    result = evaluate("held-out.jsonl", [base, tuned], ["exact", "similarity"])
    print(result)

Names are looked up when they are used: `ipytune --help` imports this package and must answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipytune.evaluate.job import Job
    from ipytune.evaluate.plan import Plan
    from ipytune.evaluate.progress import Progress
    from ipytune.evaluate.result import Evaluation
    from ipytune.evaluate.run import evaluate
    from ipytune.evaluate.scorers import Judge, PairwiseJudge, Score

_WHERE = {
    "Evaluation": "result",
    "Job": "job",
    "Judge": "scorers",
    "PairwiseJudge": "scorers",
    "Plan": "plan",
    "Progress": "progress",
    "Score": "scorers",
    "evaluate": "run",
}

__all__ = ["Evaluation", "Job", "Judge", "PairwiseJudge", "Plan", "Progress", "Score", "evaluate"]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
