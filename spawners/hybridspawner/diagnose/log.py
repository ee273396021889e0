"""What the log of a session says: from known lines to a cause and a remedy, without the secrets that stand in it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

SEE_LOG = "The log below has the details; if it does not help, show it to the site's support."


class Clue(NamedTuple):
    """The cause that a log tells, what to do, and a short label for metrics."""

    why: str
    remedy: str
    reason: str


# (pattern, why, remedy, label), the surest first; {} stands for what the pattern's group found
_LOG_CLUES = (
    (
        r"No module named '?(jupyterhub)",
        "The environment lacks JupyterHub.",
        "Choose another environment, or install jupyterhub and jupyterlab into this one.",
        "package_missing",
    ),
    (
        r"No module named '?(jupyter[\w.]*)|(jupyter[-\w]*)` not found",
        "The environment lacks JupyterLab ({}).",
        "Choose another environment, or install jupyterlab into this one.",
        "package_missing",
    ),
    (
        r"No module named '?([\w.]+)",
        "The environment lacks the Python package {}.",
        "Choose another environment, or install the package.",
        "package_missing",
    ),
    (
        r"(?i)exceeded (?:job |step )?memory limit|oom[-_ ]?kill|out of memory|^MemoryError|cannot allocate memory",
        "The session used more memory than it has.",
        "Choose a profile with more memory.",
        "memory",
    ),
    (
        r"(?i)DUE TO TIME LIMIT",
        "The job reached its time limit.",
        "Ask for more time.",
        "timeout",
    ),
    (
        r"(?i)port (\d+) is (?:not available|already in use)|address already in use",
        "Another program took the session's port {} on the node.",
        "Start again: the next start takes another port.",
        "port_taken",
    ),
    (
        r"(?i)disk quota exceeded|no space left on device",
        "The disk is full.",
        "Free space in your home directory.",
        "disk_full",
    ),
    (
        r"(?i)read-only file system: '?([^'\s]+)?|read-only file system",
        "A directory that the session writes to is read-only on the node: {}.",
        "Tell the site's support.",
        "home",
    ),
    (
        r"The hub at (\S+) was out of reach|Cannot reach the hub at (\S+): ",
        "The node cannot reach the hub at {}.",
        "Tell the site's support.",
        "hub_unreachable",
    ),
    (
        r"does not wait for this session",
        "The hub had given up on this session.",
        "Start again.",
        "not_wanted",
    ),
    (
        r"(?:[Ee]xec format error|cannot execute binary file)",
        "A program of the environment is made for another kind of processor.",
        "Choose another environment, and tell the site's support.",
        "environment",
    ),
    (
        r"version `(\w+_[\d.]+)' not found",
        "A program of the environment needs {}, which the node's system does not have.",
        "Choose another environment, and tell the site's support.",
        "environment",
    ),
    (
        r"PermissionError: .*?[Pp]ermission denied: '([^'\n]+)'",
        "{} is not readable or writable for you on the node.",
        "Check that it is yours and the permissions of the directories above it; else tell the site's support.",
        "permission",
    ),
    (
        r"(?<![^\s:])(/[^\s:]{1,300}): (?:cannot execute: )?[Pp]ermission denied|[Pp]ermission denied",
        "Something is not readable or not executable for you on the node: {}.",
        "Choose another environment, or have its owner open it and the directories above it to you.",
        "permission",
    ),
    (
        r"(?<![^\s:])([^\s:]{1,300}): (?:cannot execute: )?(?:No such file or directory|command not found"
        r"|required file not found)(?!: going to)",
        "A program or file of the environment is missing on the node: {}.",
        "Choose another environment, and tell the site's support.",
        "environment",
    ),
    (
        r"couldn't chdir to `([^']+)'",
        "Your directory {} is not on the node.",
        "Tell the site's support.",
        "home",
    ),
    (
        r"(?m)^([\w.]{0,80}(?:Error|Exception): [^\n]{1,200})",
        "Python ended with {}.",
        SEE_LOG,
        "exited",
    ),
)


def find_clue(log: str) -> Clue | None:
    """The surest cause that `log` names, or None."""
    log = _short_lines(log)
    for pattern, why, remedy, reason in _LOG_CLUES:
        matches = list(re.finditer(pattern, log, re.MULTILINE))
        if matches:
            named = next((group for group in matches[-1].groups() if group), "")
            return Clue(_filled(why, named), remedy, reason)
    return None


def _short_lines(text: str) -> str:
    """`text` with the ends of very long lines cut off: nobody reads them, and patterns take their time over them."""
    return "\n".join(line if len(line) <= 500 else line[:500] + "..." for line in text.split("\n"))


def _filled(why: str, named: str) -> str:
    """`why` with the thing named; if nothing is named, without its place and the colon or brackets around that."""
    if named:
        return why.replace("{}", named.rstrip("."))
    return re.sub(r":? \(?\{\}\)?", "", why)


def clue(log: str) -> tuple[str, str] | None:
    """Why and remedy of the cause that `log` names, or None."""
    found = find_clue(log)
    return None if found is None else (found.why, found.remedy)


def hub_unreachable(log: str) -> tuple[str, str] | None:
    """(message, the node's words) if the last that the node wrote is that it cannot reach the hub; else None."""
    lines = log.strip().splitlines()
    match = re.match(r"Cannot reach the hub at (\S+): (.*)\. Trying again", lines[-1]) if lines else None
    if match is None:
        return None
    return f"The node cannot reach the hub at {match[1]}; it goes on trying", match[2]


MASK = "***"
_VALUE = r"""("[^"\n]*"|'[^'\n]*'|(?:(?:token|bearer|basic)\s+)?[^\s"'&;,]+)"""
_NAMED = re.compile(
    rf"""((?:token|passw(?:or)?d|secret|api_?key|authorization|cookie)[\w-]{{0,40}}["']?\s?[=:]\s?){_VALUE}""",
    re.IGNORECASE,
)
_KNOWN_FORMS = re.compile(
    r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|xox[abp]-)[\w-]{10,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=://)[^/\s:@]{1,100}:[^/\s@]{1,300}(?=@)"
)


def without_secrets(text: str, secrets: Collection[str] = ()) -> str:
    """`text` with `secrets` masked, and whatever looks like one: values of tokens, passwords and keys."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _KNOWN_FORMS.sub(MASK, _NAMED.sub(lambda match: match[1] + MASK, _short_lines(text)))
