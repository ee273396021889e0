"""What the log of a session says of the cause: from known lines to a reason and a remedy."""

from __future__ import annotations

import re

SEE_LOG = "The log below has the details; if it does not help, show it to the site's support."

_LOG_CLUES = (
    (
        r"No module named '?jupyterhub",
        "The environment lacks JupyterHub.",
        "Choose another environment, or install jupyterhub and jupyterlab into this one.",
    ),
    (
        r"No module named '?jupyter",
        "The environment lacks JupyterLab.",
        "Choose another environment, or install jupyterlab into this one.",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "The environment lacks a Python package.",
        "Choose another environment, or install the package.",
    ),
    (
        r"(?:No such file or directory|command not found)",
        "A program of the environment is missing on the node.",
        "Choose another environment, and tell the site's support.",
    ),
    (
        r"Permission denied",
        "Something is not readable or not executable for you on the node.",
        "Check the file named in the log, and tell the site's support.",
    ),
    (r"(?:Disk quota exceeded|No space left on device)", "The disk is full.", "Free space in your home directory."),
    (r"The hub at .* was out of reach", "The node could not reach the hub.", "Tell the site's support."),
    (r"does not wait for this session", "The hub had given up on this session.", "Start again."),
)


def clue(log: str) -> tuple[str, str] | None:
    for pattern, why, remedy in _LOG_CLUES:
        match = re.search(pattern, log)
        if match:
            named = f" ({match[1]})" if match.groups() else ""
            return why.rstrip(".") + named + ".", remedy
    return None
