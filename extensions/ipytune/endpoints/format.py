"""Metrics in words a reader takes in at a glance: one place, so that panels, reports and the command line agree."""

from __future__ import annotations

from ipytune.endpoints.metrics import Metrics


def seconds(value: float | None) -> str:
    """>>> seconds(0.0312), seconds(1.234), seconds(75.2), seconds(None)
    ('31 ms', '1.23 s', '1 min 15 s', '–')
    """
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rate(value: float | None) -> str:
    """Tokens per second. >>> rate(9.04), rate(123.4), rate(None)
    ('9.0 tokens/s', '123 tokens/s', '–')
    """
    if value is None:
        return "–"
    return f"{value:.1f} tokens/s" if value < 100 else f"{value:.0f} tokens/s"


def tokens(metrics: Metrics) -> str:
    """The number of output tokens; one that was not counted by the server is marked as an estimate."""
    plural = "" if metrics.output_tokens == 1 else "s"
    if metrics.estimated:
        return f"≈ {metrics.output_tokens} token{plural} (estimated: the server gave no count)"
    return f"{metrics.output_tokens} token{plural}"


def summary(metrics: Metrics) -> str:
    """One line: time to first token, speed, tokens, whole time."""
    return (
        f"first token {seconds(metrics.ttft)} · {rate(metrics.tokens_per_second)} · {tokens(metrics)} · "
        f"{seconds(metrics.e2e)} in all"
    )
