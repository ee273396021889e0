"""Everything that determines a fine-tuning run, as one validated model that is read from and written to YAML.

Promises: an unknown field or a wrong value is an error that names the field; the same configuration on the same machine
trains the same adapter; importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, model_validator

Positive = Annotated[int, Field(ge=1)]

# Fields that may differ between a run and its continuation: they say how long, how loudly or with how much memory,
# never what is learned. (Other rows add up the same numbers in another order: the last digits of a loss may differ.)
FREE_ON_RESUME = frozenset(
    {
        *("log_every", "checkpoint_every", "keep_checkpoints", "max_minutes", "threads", "track", "sample_every"),
        *("row_tokens", "gradient_checkpointing", "compile", "versions"),
    }
)


# The docstrings of fields are their descriptions: what the panel and the schema say of them has one place.
_CLOSED = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ConfigError(ValueError):
    """A configuration that cannot be read; the message names the file, the field and what is allowed."""


class DataSettings(BaseModel):
    """How the files are read and what of them is learned."""

    model_config = _CLOSED

    layout: Literal["auto", "messages", "prompt-completion", "alpaca", "sharegpt"] = "auto"
    """Which columns a row has; auto recognises it by their names."""
    columns: dict[str, str] = {}
    """Our name of a column -> the file's: {"prompt": "question", "completion": "answer"}."""
    learn: Literal["completions", "last", "all"] = "completions"
    """Tokens that count in the loss: of every answer, of the last answer, or all (also what the user says)."""
    too_long: Literal["error", "truncate", "drop"] = "error"
    """What becomes of a conversation over max_length. truncate keeps its beginning; both say how many they change."""
    eval_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Part of train_file that is held out when there is no eval_file: chosen by the seed, never by position."""


class LoraSettings(BaseModel):
    """Shape of the adapter. Sources of the defaults: "LoRA Without Regret" and the Tinker cookbook."""

    model_config = _CLOSED

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """16: enough for a few thousand examples, and vLLM serves it without --max-lora-rank (its default limit is 16)."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The adapter is scaled by alpha/rank. Constant, so that the learning rate hardly depends on the rank."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """All linear layers but the head: attention alone learns worse at the same number of parameters."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """0: short fine-tuning gains nothing from dropout, and each dropout costs a pass over the activations."""
    rslora: bool = False
    """Scale by alpha/sqrt(rank) (arXiv 2312.03732): learns more at ranks of 64 and over, and forgets more."""
    dora: bool = False
    """Magnitude and direction apart (arXiv 2402.09353): a quarter slower, no gain in PEFT's comparison."""
    init: Literal["default", "pissa"] = "default"
    """pissa begins with the base's principal components (arXiv 2404.02948): faster at first; changes the base, so the
    adapter is converted to a plain one of twice the rank when it is saved."""
    plus_ratio: Annotated[float, Field(ge=1, le=64)] | None = None
    """LoRA+ (arXiv 2402.12354): learning rate of B over that of A; its authors use 16. None: one rate for both."""


class RunConfig(BaseModel):
    """A fine-tuning run. Paths in a YAML file are relative to that file; from Python, to the working directory."""

    model_config = _CLOSED

    model: str = "smollm2-135m-instruct"
    """A model directory, smollm2-135m-instruct (it comes with a package, needs no network), or an id on a model hub."""
    train_file: Path
    """JSON lines, JSON, CSV, TSV or Parquet, one conversation a row; `data` says how rows are read."""
    eval_file: Path | None = None
    """Conversations that are never trained on; the loss on them is reported while training and at the end."""
    train_sha256: str | None = None
    """Checksum of train_file, filled in when a run starts; a continued run refuses changed data."""
    eval_sha256: str | None = None
    data: DataSettings = DataSettings()
    lora: LoraSettings = LoraSettings()
    quantise: Literal["none", "nf4"] = "none"
    """nf4 holds the frozen base in 4 bits (QLoRA, arXiv 2305.14314): a third of its memory, slower; needs bitsandbytes
    and a GPU."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """2e-4: ten times what full fine-tuning wants (LoRA Without Regret). Small models and short runs bear 1e-3."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """linear: falls to zero at the last step, which settles short runs; cosine falls to a tenth; constant suits runs of
    unknown length."""
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    """5: Adam's first estimates are noisy; longer warm-up only spends a short run."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """0: the adapter is small and begins at no change, so there is little to hold back."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """A longer gradient is scaled down to this: one odd batch does not undo what was learned."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over train_file; max_steps, when set, decides instead."""
    max_steps: Positive | None = None
    """Optimiser steps, however many passes that is; None: as many as `epochs` takes."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Ends training after this many minutes (loading not counted), keeping what was learned; counts anew on resume."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Conversations per optimiser step. LoRA tolerates large batches less than full fine-tuning: stay below 32."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens. A longer conversation is an error before training starts unless data.too_long says otherwise."""
    row_tokens: Annotated[int, Field(ge=8)] = 1024
    """Conversations are packed into rows of up to this many tokens for one forward pass; a memory limit, no more."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the adapter's beginning, the order of the conversations, dropout, and which ones are held out."""
    eval_every: Positive | None = None
    """Optimiser steps between two losses on the held-out conversations; None: at each checkpoint."""
    patience: Positive | None = None
    """Ends training after so many evaluations without a better one, and keeps the best checkpoint. None: never."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """By how much a held-out loss must fall to count as better."""
    sample_prompts: tuple[str, ...] = ()
    """Questions that the model answers while it learns; the answers are in events.jsonl and on the panel."""
    sample_every: Positive | None = None
    """Optimiser steps between two such answers; None: at each checkpoint."""
    sample_tokens: Annotated[int, Field(ge=1, le=1024)] = 64
    """The longest such answer."""

    gradient_checkpointing: Literal["auto", "never", "always"] = "auto"
    """Recompute activations in the backward: half as much work again for LoRA. auto: only after memory ran out."""
    compile: Literal["auto", "never", "always"] = "auto"
    """Compile each decoder layer; auto: on a GPU, for runs that last much longer than the compilation."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes share the work; auto: fsdp when the base does not fit one GPU, else ddp."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen base: auto is bfloat16 on a GPU and on a CPU with AMX, else float32 (bfloat16 would be slower).
    The adapter and its optimiser are always float32: plain bfloat16 Adam loses small updates."""
    threads: Positive | None = None
    """CPU threads; None takes the cores that this process may use."""
    log_every: Positive = 1
    """Optimiser steps between two points of the curve."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 50
    """Optimiser steps between checkpoints; 0 writes one only when the run stops."""
    keep_checkpoints: Positive = 2
    """The newest ones; the best one is kept beside them."""
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Where the curves go beside the run directory; mlflow reads its address from MLFLOW_TRACKING_URI."""
    versions: dict[str, str] = {}
    """Of the libraries that trained; filled in when a run starts."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> RunConfig:
        if self.max_length > self.row_tokens:
            raise ValueError(
                f"max_length ({self.max_length}) is over row_tokens ({self.row_tokens}): a conversation of that length "
                f"fits no row. Raise row_tokens, or lower max_length."
            )
        return self

    @model_validator(mode="after")
    def _variants_go_together(self) -> RunConfig:
        if self.lora.init == "pissa" and (self.lora.dora or self.quantise != "none"):
            other = "dora" if self.lora.dora else f"quantise: {self.quantise}"
            raise ValueError(
                f"lora.init: pissa does not go with {other}, which changes the base as well. Leave one out."
            )
        if "lm_head" in self.lora.targets and self.lora.targets != "all-linear":
            raise ValueError(
                "lora.targets: lm_head stays as it is, since its loss is computed apart. Name layers of the decoder, "
                "for example q_proj and v_proj, or all-linear."
            )
        if self.quantise != "none" and self.parallel == "fsdp":
            raise ValueError(f"quantise: {self.quantise} cannot be sharded (parallel: fsdp). Leave one of them out.")
        if self.patience is not None and self.eval_file is None and not self.data.eval_fraction:
            raise ValueError("patience needs held-out conversations: name an eval_file, or set data.eval_fraction.")
        return self

    @field_serializer("train_file", "eval_file")
    def _path_as_text(self, path: Path | None) -> str | None:
        return None if path is None else str(path)

    @classmethod
    def from_yaml(cls, path: Path | str) -> RunConfig:
        """Reads a configuration; raises ConfigError naming file and field, or FileNotFoundError."""
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not YAML: {error}. Compare it with the example in docs/user.") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{path} holds no settings. Write at least `train_file: train.jsonl`.")
        try:
            config = cls.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(f"{path}: {explain(error)}") from error
        folder = path.resolve().parent
        return config.with_files(train_file=config.train_file, eval_file=config.eval_file, folder=folder)

    def to_yaml(self, path: Path | str) -> None:
        """Writes every field, defaults too: a run is then determined by its file and not by our version."""
        Path(path).write_text(self.as_yaml(), encoding="utf-8")

    def as_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def with_files(self, train_file: Path, eval_file: Path | None, folder: Path) -> RunConfig:
        """The same run with its files made absolute, relative ones starting at `folder`."""
        absolute = {"train_file": folder / train_file, "eval_file": None if eval_file is None else folder / eval_file}
        return self.model_copy(update=absolute)

    def pinned(self) -> RunConfig:
        """The same run with absolute paths and the checksums of its files; raises ConfigError when one is missing,
        or is no longer the file whose checksum the configuration holds."""
        here = self.with_files(self.train_file.expanduser(), self.eval_file and self.eval_file.expanduser(), Path.cwd())
        sums = {"train_sha256": _pinned(here.train_file, self.train_sha256, "train_file")}
        if here.eval_file is not None:
            sums["eval_sha256"] = _pinned(here.eval_file, self.eval_sha256, "eval_file")
        return here.model_copy(update=sums)

    def differences(self, other: RunConfig) -> dict[str, tuple[object, object]]:
        """Fields in which two configurations would train different adapters: name -> (ours, theirs)."""
        ours, theirs = self.model_dump(), other.model_dump()
        return {k: (ours[k], theirs[k]) for k in ours if k not in FREE_ON_RESUME and ours[k] != theirs[k]}

    @classmethod
    def first_task(cls, smoke: bool = False) -> RunConfig:
        """The task shipped with ipytune: plain-language requests to Slurm headers.

        smoke trains a shorter time, for notebooks run unattended in tests: it learns the form, not all of the task.
        """
        name = "first_task_smoke.yaml" if smoke else "first_task.yaml"
        return cls.from_yaml(Path(__file__).parent.parent / "data" / "slurm_headers" / name)


def explain(error: ValidationError) -> str:
    """Pydantic's findings as one sentence each, naming the field and what was given."""
    return "; ".join(
        f"{'.'.join(str(part) for part in finding['loc']) or 'configuration'}: {finding['msg']}"
        + ("" if finding["type"] in {"missing", "value_error"} else f" (given: {finding['input']!r})")
        for finding in error.errors()
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file.read())
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pinned(path: Path, expected: str | None, field: str) -> str:
    if not path.is_file():
        raise ConfigError(f"{field}: there is no file {path}. Give the path of a JSON-lines file with conversations.")
    found = sha256_of(path)
    if expected is not None and found != expected:
        raise ConfigError(
            f"{field}: {path} has changed since this configuration was made (sha256 {found[:12]}…, expected "
            f"{expected[:12]}…). Restore the file, or start a new run without the checksum."
        )
    return found
