"""What a tokenizer makes of a data set: tokens to train on, counts, and what is wrong with them. No model is loaded.

- too_long: an error names every conversation over max_length; truncate and drop say in one warning what they change.
- Findings that many conversations share are one finding, with the first line and how many.
- A conversation of which nothing is left to learn is never trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from ipytune.data.findings import DatasetError, Finding, in_order
from ipytune.data.read import Example
from ipytune.data.spans import ChatTokenizer, Rendered, TemplateError, rendered
from ipytune.data.template import Tokens, special_ids, tokens_of
from ipytune.data.tokenizer import mismatches
from ipytune.data.validate import Dataset
from ipytune.lora.config import RunConfig

AT_ONCE = 2048  # conversations whose text is held at a time


@dataclass(frozen=True)
class Report:
    """Counts of what is trained on (after cutting and dropping), findings, and the tokens themselves."""

    examples: int
    held_out_examples: int
    tokens: int
    learned_tokens: int
    longest: int
    """Tokens of the longest conversation, before cutting."""
    cut: int
    """Conversations that were cut to max_length, of both kinds."""
    cut_tokens: int
    dropped: int
    """Conversations that are not used: too long, or nothing to learn was left after the cut."""
    findings: tuple[Finding, ...]
    train: tuple[Tokens, ...] = field(repr=False)
    held_out: tuple[Tokens, ...] = field(repr=False)

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.warning]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.warning]

    def checked(self) -> Report:
        """This report; raises DatasetError when it holds errors."""
        if self.errors:
            raise DatasetError(self.errors)
        return self

    def __str__(self) -> str:
        share = self.learned_tokens / self.tokens if self.tokens else 0
        parts = [
            f"{self.examples:,} conversations to train on",
            f"{self.tokens:,} tokens",
            f"{self.learned_tokens:,} of them learned ({share:.0%})",
            f"the longest {self.longest:,}",
        ]
        parts += [f"{self.held_out_examples:,} held out"] if self.held_out_examples else []
        parts += [f"{self.cut:,} cut by {self.cut_tokens:,} tokens"] if self.cut else []
        parts += [f"{self.dropped:,} dropped"] if self.dropped else []
        return "; ".join(parts)


def inspect(dataset: Dataset, tokenizer: ChatTokenizer, config: RunConfig, vocab_size: int | None = None) -> Report:
    """Turns the conversations into tokens and looks at what came of them.

    vocab_size is the model's (`tokenizer.vocabulary_size`); None skips what needs it. Raises nothing for bad data:
    see `Report.checked`. The findings begin with the data set's own warnings.
    """
    unfit = mismatches(tokenizer, vocab_size, config.model)
    if any(not finding.warning for finding in unfit):
        return Report(len(dataset.train), len(dataset.held_out), 0, 0, 0, 0, 0, 0, tuple(unfit), (), ())
    train = _Part(tokenizer, config, config.train_file, vocab_size)
    train.take(dataset.train)
    held_out = _Part(tokenizer, config, config.eval_file or config.train_file, vocab_size)
    held_out.take(dataset.held_out)
    findings = [*dataset.warnings, *unfit, *in_order([*train.found(), *held_out.found()])]
    return Report(
        examples=len(train.tokens),
        held_out_examples=len(held_out.tokens),
        tokens=sum(map(len, train.tokens)),
        learned_tokens=sum(sum(tokens.learned) for tokens in train.tokens),
        longest=max(train.longest, held_out.longest),
        cut=train.cut + held_out.cut,
        cut_tokens=train.cut_tokens + held_out.cut_tokens,
        dropped=train.dropped + held_out.dropped,
        findings=tuple(findings),
        train=tuple(train.tokens),
        held_out=tuple(held_out.tokens),
    )


class _Part:
    """The conversations of one file on their way to tokens, and what is found on it."""

    def __init__(self, tokenizer: Any, config: RunConfig, file: Path, vocab_size: int | None) -> None:
        self._tokenizer, self._config, self._file, self._vocab_size = tokenizer, config, file, vocab_size
        self._controls = _control_tokens(tokenizer)
        self._shared: dict[tuple[str, str, bool], list[int]] = {}  # (what, remedy, warning) -> lines
        self._own: list[Finding] = []
        self.tokens: list[Tokens] = []
        self.longest = self.cut = self.cut_tokens = self.dropped = 0

    def take(self, examples: Sequence[Example]) -> None:
        for start in range(0, len(examples), AT_ONCE):
            texts = list(self._rendered(examples[start : start + AT_ONCE]))
            made = tokens_of(self._tokenizer, [text for _, text in texts])
            for (example, _), tokens in zip(texts, made, strict=True):
                if isinstance(tokens, TemplateError):
                    self._note(example, tokens.what, tokens.remedy)
                else:
                    self._fit(example, tokens)
        if examples and not self.tokens and not self._own and all(warning for _, _, warning in self._shared):
            remedy = "Raise max_length (and row_tokens), or shorten the conversations"
            self._own.append(Finding(self._file, 0, "no conversation is left to use", remedy))

    def found(self) -> list[Finding]:
        shared = [
            Finding(self._file, lines[0], f"{what}{_and_more(lines)}", remedy, warning)
            for (what, remedy, warning), lines in self._shared.items()
        ]
        return [*self._own, *shared, *self._lengths()]

    def _note(self, example: Example, what: str, remedy: str, warning: bool = False) -> None:
        self._shared.setdefault((what, remedy, warning), []).append(example.line)

    def _rendered(self, examples: Sequence[Example]) -> Iterator[tuple[Example, Rendered]]:
        for example in examples:
            try:
                text = rendered(self._tokenizer, example.as_dicts(), self._config.data.learn, example.given)
            except TemplateError as error:
                self._note(example, error.what, error.remedy)
                continue
            for what, remedy, warning in _eaten(example, text.text):
                self._note(example, what, remedy, warning)
            if text.rewritten:
                self._note(
                    example,
                    "the chat template rewrites earlier answers once the conversation goes on, so they are not "
                    "learned, only later ones",
                    "Split such a conversation into one for each answer to learn them all",
                    warning=True,
                )
            if self._controls and any(self._controls.search(message.content) for message in example.messages):
                self._note(
                    example,
                    "a message holds one of the tokenizer's control tokens as text, which the model reads as a signal",
                    "Write it differently, unless it is meant",
                    warning=True,
                )
            yield example, text

    def _fit(self, example: Example, tokens: Tokens) -> None:
        """Takes a conversation that fits; of one that does not, what too_long says."""
        length, limit = len(tokens), self._config.max_length
        self.longest = max(self.longest, length)
        if self._vocab_size is not None and (highest := max(tokens.ids, default=0)) >= self._vocab_size:
            what = f"token {highest} is beyond the model's {self._vocab_size} ids"
            self._own.append(Finding(self._file, example.line, what, "Use the tokenizer that came with the model"))
            return
        if self._tokenizer.eos_token_id not in compress(tokens.ids, tokens.learned):
            self._note(
                example,
                f"the answers end with another token than tokenizer.eos_token ({self._tokenizer.eos_token!r})",
                "Make sure that generation stops at it (eos_token_id in the model's generation_config.json)",
                warning=True,
            )
        if length > limit:
            if self._config.data.too_long == "error":
                remedy = "Raise max_length (and row_tokens), or shorten the conversation"
                self._own.append(Finding(self._file, example.line, f"{length} tokens, over max_length {limit}", remedy))
                return
            if self._config.data.too_long == "truncate":
                tokens = Tokens(tokens.ids[:limit], tokens.learned[:limit])
            if self._config.data.too_long == "drop" or not any(tokens.learned):
                self.dropped += 1
                return
            self.cut += 1
            self.cut_tokens += length - limit
        self.tokens.append(tokens)

    def _lengths(self) -> Iterator[Finding]:
        limit, remedy = self._config.max_length, "Raise max_length (and row_tokens) to keep them whole"
        total = len(self.tokens) + self.dropped
        if self.cut:
            share = self.cut_tokens / (self.cut_tokens + sum(map(len, self.tokens)))
            what = (
                f"{self.cut:,} of {total:,} conversations are cut to max_length {limit} ({self.cut_tokens:,} tokens, "
                f"{share:.1%}), and teach no end"
            )
            yield Finding(self._file, 0, what, remedy, warning=True)
        if self.dropped:
            why = "have nothing to learn in their first" if self._config.data.too_long == "truncate" else "are over"
            what = f"{self.dropped:,} of {total:,} conversations {why} {limit} tokens and are dropped"
            yield Finding(self._file, 0, what, remedy, warning=True)


def _and_more(lines: Sequence[int]) -> str:
    return f" (and {len(lines) - 1:,} more like it)" if len(lines) > 1 else ""


def _eaten(example: Example, text: str) -> Iterator[tuple[str, str, bool]]:
    """What of the messages the rendered text lacks: (what, remedy, warning). White space is not a difference."""
    plain: str | None = None
    for message in example.messages:
        if message.content.strip() in text:
            continue
        plain = " ".join(text.split()) if plain is None else plain
        if " ".join(message.content.split()) in plain:
            continue
        spoken = message.content.rpartition("</think>")[2]
        if message.role == "assistant" and spoken != message.content and " ".join(spoken.split()) in plain:
            if not _reasoning_kept(message.content, plain):
                what, remedy = "the chat template leaves out the reasoning of an answer", "Only the rest is learned"
                yield what, remedy, True
            continue
        yield (
            f"the chat template leaves out or changes the text of a message ({message.role})",
            "Move the text to a message that the template shows, or use a tokenizer with another template",
            False,
        )


def _reasoning_kept(content: str, plain: str) -> bool:
    """Whether the reasoning is in the rendered text, whatever white space the template puts around its tags."""
    reasoning = content.rpartition("</think>")[0].partition("<think>")[2]
    return " ".join(reasoning.split()) in plain


def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds special tokens that stand in a message as text; single letters and words are not looked for."""
    known = getattr(tokenizer, "added_tokens_decoder", {})
    texts = [known[i].content for i in special_ids(tokenizer) if i in known]
    marked = sorted({text for text in texts if len(text) > 2 and not text.isalnum()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, marked))) if marked else None
