"""The first batch as training will see it: the same conversations in the same rows, decoded, learned tokens marked."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ipytune.data.pack import batch, pack, row_of
from ipytune.data.template import Tokens
from ipytune.lora.config import RunConfig

LONGEST = 4000  # characters of one conversation that are shown: a page, not a book

STYLE = """
.ipt-preview { --ipt-seen: var(--jp-ui-font-color2, #616161); --ipt-new: var(--jp-success-color1, #1b6e2e);
  --ipt-edge: var(--jp-border-color2, #d0d0d0); color: var(--ipt-seen);
  font: 12px/1.5 var(--jp-code-font-family, ui-monospace, monospace); }
.ipt-preview h4, .ipt-preview h5 { margin: 8px 0 4px; color: inherit; font: inherit; font-weight: 600; }
.ipt-preview section { padding: 0 10px; border-left: 3px solid var(--ipt-edge); }
.ipt-preview pre { margin: 4px 0 8px; font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; }
.ipt-masked { opacity: 0.7; }
.ipt-learned { background: color-mix(in srgb, var(--ipt-new) 18%, transparent); color: var(--ipt-new);
  font-weight: 600; border-radius: 2px; }
@media (prefers-color-scheme: dark) { .ipt-preview { --ipt-seen: var(--jp-ui-font-color2, #b5b5b5);
  --ipt-new: var(--jp-success-color1, #7bd88f); --ipt-edge: var(--jp-border-color2, #4a4a4a); } }
"""


@dataclass(frozen=True)
class Segment:
    """Text of neighbouring tokens that are all learned, or all not."""

    text: str
    learned: bool


@dataclass(frozen=True)
class Shown:
    """One conversation of a row."""

    tokens: int
    learned: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Preview:
    """A batch: rows of one forward pass each, and the conversations that share a row without seeing one another."""

    rows: tuple[tuple[Shown, ...], ...]
    step: int

    def text(self, brackets: bool = False) -> Text:
        """For a terminal: learned text green and bold, the rest dim; conversations under a line with their counts.

        brackets puts learned text between ⟦ and ⟧ too, for where colours are lost.
        """
        out = Text()
        for number, row in enumerate(self.rows, start=1):
            out.append(f"{self._title(number, row)}\n", style="bold")
            for place, shown in enumerate(row, start=1):
                out.append(f"── {_counts(place, shown)} ", style="cyan").append("─" * 20 + "\n", style="cyan")
                for segment in _clipped(shown.segments):
                    said = _visible(segment.text)
                    said = f"⟦{said}⟧" if brackets and segment.learned else said
                    out.append(said, style="bold green" if segment.learned else "dim")
                out.append("\n")
        return out

    def html(self) -> str:
        """For a notebook or a page: escaped, without scripts; learned text also reads without the style (<mark>)."""
        rows = "".join(
            f"<h4>{html.escape(self._title(number, row))}</h4>"
            + "".join(
                f"<section><h5>{html.escape(_counts(place, shown))}</h5><pre>{_marked(shown.segments)}</pre></section>"
                for place, shown in enumerate(row, start=1)
            )
            for number, row in enumerate(self.rows, start=1)
        )
        return f'<div class="ipt-preview"><style>{STYLE}</style>{rows}</div>'

    def plain(self) -> list[dict[str, Any]]:
        """Rows as plain data, for a widget: {title, conversations: [{title, segments: [[text, learned], ...]}]}."""
        return [
            {
                "title": self._title(number, row),
                "conversations": [
                    {
                        "title": _counts(place, shown),
                        "segments": [[_visible(part.text), part.learned] for part in _clipped(shown.segments)],
                    }
                    for place, shown in enumerate(row, start=1)
                ],
            }
            for number, row in enumerate(self.rows, start=1)
        ]

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        return self.text(brackets=True).plain

    def _title(self, number: int, row: Sequence[Shown]) -> str:
        return f"step {self.step + 1}, row {number} of {len(self.rows)}: {sum(shown.tokens for shown in row)} tokens"


def preview(
    examples: Sequence[Tokens],
    tokenizer: Any,
    config: RunConfig,
    step: int = 0,
    packs: bool = True,
    limit: int | None = None,
) -> Preview:
    """The batch of optimiser step `step` (from 0), from `Report.train`; its first `limit` conversations only, if given.

    packs: whether the model lets conversations share a row (`Trainable.packs`). Raises ValueError for no conversations.
    """
    if not examples:
        raise ValueError("there is no conversation to show. Look at the findings first.")
    chosen = [examples[i] for i in batch(step, len(examples), config.batch_size, config.seed)]
    packed = pack(chosen, config.row_tokens) if packs else [row_of([tokens]) for tokens in chosen]
    rows: list[tuple[Shown, ...]] = []
    left = len(chosen) if limit is None else limit
    for row in packed:
        edges = list(itertools.accumulate(row.lengths, initial=0))[: left + 1]
        left -= len(edges) - 1
        if len(edges) > 1:
            rows.append(
                tuple(
                    _shown(tokenizer, row.ids[start:end], row.learned[start:end])
                    for start, end in itertools.pairwise(edges)
                )
            )
    return Preview(tuple(rows), step)


def _shown(tokenizer: Any, ids: Sequence[int], learned: Sequence[bool]) -> Shown:
    return Shown(len(ids), sum(learned), tuple(_segments(tokenizer, ids, learned)))


def _segments(tokenizer: Any, ids: Sequence[int], learned: Sequence[bool]) -> Iterator[Segment]:
    """The text of each run of tokens: by what it adds to the text so far, as some tokens read differently alone."""
    end, shown = 0, 0
    for is_learned, run in itertools.groupby(learned):
        end += len(list(run))
        text = tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        yield Segment(text[shown:], is_learned)
        shown = len(text)


def _clipped(segments: Sequence[Segment]) -> Iterator[Segment]:
    """At most LONGEST characters: of longer segments the beginning and the end, so that every border stays in sight."""
    total = sum(len(segment.text) for segment in segments)
    each = LONGEST // max(1, len(segments))
    for segment in segments:
        over = len(segment.text) - each
        if total <= LONGEST or over <= 0:
            yield segment
        else:
            head, tail = segment.text[: each // 2], segment.text[len(segment.text) - each // 2 :]
            yield Segment(f"{head} … {over:,} characters … {tail}", segment.learned)


def _counts(place: int, shown: Shown) -> str:
    return f"conversation {place}: {shown.tokens} tokens, {shown.learned} learned"


def _marked(segments: Sequence[Segment]) -> str:
    return "".join(
        f'<mark class="ipt-learned">{html.escape(_visible(segment.text))}</mark>'
        if segment.learned
        else f'<span class="ipt-masked">{html.escape(_visible(segment.text))}</span>'
        for segment in _clipped(segments)
    )


# Control characters as pictures, and what turns the direction of text as its code: data must not steer a terminal.
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {
    code: f"[U+{code:04X}]" for code in (0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def _visible(text: str) -> str:
    return text.translate(_PICTURES)
