"""Commands that take `-p NAME VALUE` as papermill does: two words, for which typer has no type."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OPTIONS = ("-p", "--parameter", "-r", "--parameter-raw")


class Pairs(TyperCommand):
    """Hands the two words on as one, `NAME=VALUE`; what stands after `--` is left alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        rest = iter(args)
        for word in rest:
            joined.append(word)
            if word == "--":
                break
            if word in OPTIONS:
                name, value = next(rest, None), next(rest, None)
                if name is None or value is None:
                    ctx.fail(f"{word}: NAME and VALUE are expected, as in {word} MAX_STEPS 60.")
                joined.append(f"{name}={value}")
        return super().parse_args(ctx, [*joined, *rest])
