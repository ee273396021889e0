"""What a notebook that also runs unattended needs at both of its ends: its parameters checked, its numbers written.

    from ipytune.lesson import Lesson, choice, integer, model, optional

    lesson = Lesson("02-lora-in-depth", globals())
    lesson.check(PROFILE=choice("smoke", "gpu"), MODEL=model(), MAX_STEPS=optional(integer(1, 1000)), gpus={"gpu": 1})
    ...
    lesson.metrics(loss=report["loss"])

`check` names everything that is wrong at once, with what to do, in place of a traceback; `metrics` writes
OUT_DIR/metrics.json, which a runner, a table of results and a reader find the same in every notebook. Without torch.
"""

from ipytune.lesson.findings import ParameterError
from ipytune.lesson.kinds import Kind, choice, file, flag, folder, integer, items, model, number, optional, text
from ipytune.lesson.lesson import Lesson
from ipytune.lesson.models import find_model

__all__ = [
    "Kind",
    "Lesson",
    "ParameterError",
    "choice",
    "file",
    "find_model",
    "flag",
    "folder",
    "integer",
    "items",
    "model",
    "number",
    "optional",
    "text",
]
