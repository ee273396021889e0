"""Durations as Slurm writes them: `HH:MM:SS` or `D-HH:MM:SS`, nothing shorter, so that nobody guesses the unit."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:(?P<days>\d{1,3})-)?(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)", re.ASCII)


def parse_duration(text: str) -> int:
    """Seconds in `text`; ValueError unless it is `HH:MM:SS` or `D-HH:MM:SS` and longer than zero."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be written HH:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError("must be longer than 00:00:00")
    return total


def format_duration(seconds: int) -> str:
    """`seconds` as Slurm's `HH:MM:SS`, with days in front from one day on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"


def spoken_duration(seconds: float) -> str:
    """`seconds` for a sentence: "40 s", "25 min", "2 h", "2 h 30 min", "3 days"."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days" + (f" {hours % 24} h" if hours % 24 else "")
