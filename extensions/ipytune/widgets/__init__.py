"""Panels for notebooks: views over plain Python objects; every button is a method first."""

from ipytune.widgets.chat import ChatPanel
from ipytune.widgets.compare import ComparePanel, compare
from ipytune.widgets.evaluation import EvaluationPanel
from ipytune.widgets.finetune import FineTunePanel
from ipytune.widgets.load import LoadPanel
from ipytune.widgets.training import TrainingPanel

__all__ = ["ChatPanel", "ComparePanel", "EvaluationPanel", "FineTunePanel", "LoadPanel", "TrainingPanel", "compare"]
