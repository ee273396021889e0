"""Numbers of a run in words a reader takes in at a glance; one place, so that lists and comparisons agree."""

from __future__ import annotations

from datetime import datetime

NONE = "–"


def size(count: int) -> str:
    """Bytes, in steps of 1000 as file managers count. >>> size(950), size(12_300_000)
    ('950 B', '12.3 MB')
    """
    number, units = float(count), ("B", "kB", "MB", "GB", "TB")
    unit = 0
    while number >= 1000 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {units[unit]}" if unit == 0 or number >= 100 else f"{number:.1f} {units[unit]}"


def duration(seconds: float | None) -> str:
    """>>> duration(8.4), duration(75), duration(7300), duration(None)
    ('8 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def loss(value: float | None) -> str:
    """In nats per token. >>> loss(0.98765), loss(None)
    ('0.9877', '–')
    """
    return NONE if value is None else f"{value:.4f}"


def when(time: datetime | None) -> str:
    """Local time, to the minute."""
    return NONE if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")


def setting(value: object) -> str:
    """A value of a configuration as YAML shows it, long ones cut; a checksum by its beginning.

    >>> setting(None), setting(True), setting(["q_proj", "v_proj"]), setting(0.0002)
    ('none', 'true', 'q_proj, v_proj', '0.0002')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12] + "…"
    return text if len(text) <= 80 else "…" + text[-79:]


def printable(text: str) -> str:
    """Without control characters: a file's name must not be able to steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
