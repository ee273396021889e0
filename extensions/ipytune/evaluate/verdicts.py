"""Comparisons as sentences: what may be said of two models, and how sure it is. Pure."""

from __future__ import annotations

from ipytune.evaluate.analysis import OF_INTEREST, Comparison, Summary
from ipytune.evaluate.statistics import Interval


def share(value: float) -> str:
    """>>> share(0.5), share(0.1249), share(1.0)
    ('50.0 %', '12.5 %', '100 %')
    """
    return f"{value * 100:.1f} %".replace("100.0 %", "100 %")


def interval(found: Interval) -> str:
    return f"{found.low * 100:.1f} to {found.high * 100:.1f}"


def points(value: float) -> str:
    return f"{value * 100:+.1f} points".replace("-", "\N{MINUS SIGN}")


def chance(p: float) -> str:
    """>>> chance(0.00004), chance(0.0123), chance(0.4)
    ('p < 0.001', 'p = 0.012', 'p = 0.40')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def verdict(found: Comparison) -> str:
    """“tuned is better than base: +12.4 points, 95 % CI 5.1 to 19.8, p = 0.001 (McNemar exact), n = 120.”"""
    corrected = f", Holm for {found.against}" if found.against > 1 else ""
    signed = f"{found.interval.low * 100:.1f} to {found.interval.high * 100:.1f}".replace("-", "\N{MINUS SIGN}")
    numbers = (
        f"{points(found.difference)}, 95 % CI {signed}, {chance(found.p)} ({found.test}{corrected}), n = {found.n}"
    )
    head = f"{found.scorer}: " if found.scorer else ""
    if found.clear:
        word = "better" if found.difference > 0 else "worse"
        return f"{head}{found.endpoint} is {word} than {found.baseline}: {numbers}.{_left_out(found)}"
    wanted = f"{OF_INTEREST * 100:.0f} points"
    if found.n >= found.needed:
        then = f"A true difference of {wanted} would very likely have shown."
    else:
        then = f"About {found.needed} questions would show a difference of {wanted}."
    return f"{head}{found.endpoint} and {found.baseline} are not distinguishable: {numbers}. {then}{_left_out(found)}"


def result(found: Summary) -> str:
    """“83.3 % (95 % CI 75.7 to 88.9), 100 of 120”"""
    counted = f"{found.passed} of {found.n}" if found.passed is not None else f"n = {found.n}"
    return f"{share(found.mean)} (95 % CI {interval(found.interval)}), {counted}"


def _left_out(found: Comparison) -> str:
    if not found.left_out:
        return ""
    plural = "questions are" if found.left_out > 1 else "question is"
    return f" {found.left_out} {plural} left out: not scored for both."
