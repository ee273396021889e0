"""Claim: estimate and one-step probe are within 15 % of the peak memory of a real run.

    python -m benchmarks.memory_estimate [--smoke] [--only NAME ...] [--output benchmarks/results/memory_estimate.json]

For each point (a model shape, row_tokens, rank, recomputation) it estimates, probes, and trains a few steps with
`Run.start`, and compares both numbers with the peak that the run reports: the resident set on a CPU, tensors on a GPU.
SmolLM2-135M is the bundled model; the Qwen3 of 0.6B is made from a configuration with random weights. --smoke takes two
tiny models, where the framework is nearly all there is: it shows that the script runs. Exit status 1 if the claim does
not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ipytune.lora.config import LoraSettings, RunConfig
from ipytune.memory.advice import size
from ipytune.memory.available import available
from ipytune.memory.check import estimate_here
from ipytune.memory.probe import probe
from ipytune.models import SMOLLM2
from ipytune.runs import Run

CLAIMED = 0.15
STEPS = 4
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "tiny-llama": {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "tiny-qwen3": {
        "model_type": "qwen3",
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Point:
    model: str
    row_tokens: int
    rank: int = 16
    checkpointing: Literal["never", "always"] = "never"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    @property
    def name(self) -> str:
        again = "-recomputed" if self.checkpointing == "always" else ""
        dtype = "" if self.dtype == "auto" else f"-{self.dtype}"
        return f"{self.model}-t{self.row_tokens}-r{self.rank}{again}{dtype}"


POINTS = [
    Point(SMOLLM2, 256),
    Point(SMOLLM2, 1024),
    Point(SMOLLM2, 1024, rank=64),
    Point(SMOLLM2, 1024, checkpointing="always"),
    Point(SMOLLM2, 1024, dtype="bfloat16"),
    Point(SMOLLM2, 2048),
    Point(SMOLLM2, 2048, checkpointing="always"),
    Point(SMOLLM2, 4096),
    Point("qwen3-0.6b", 256),
    Point("qwen3-0.6b", 1024),
    Point("qwen3-0.6b", 1024, rank=64),
    Point("qwen3-0.6b", 1024, checkpointing="always"),
    Point("qwen3-0.6b", 1024, dtype="bfloat16"),
    Point("qwen3-0.6b", 2048),
]
SMOKE = [Point("tiny-llama", 256), Point("tiny-qwen3", 256, checkpointing="always")]


def measured(point: Point, folder: Path) -> dict[str, Any]:
    config = run_config(point, folder)
    estimated = estimate_here(config, available(), learned=0.5)
    probed = probe(config)
    report = Run.start(config, folder / "runs" / point.name).wait()
    peak = report["peak_memory_bytes"]
    return {
        "point": point.name,
        "device": estimated.plan.device,
        "dtype": report["dtype"],
        "estimate": estimated.as_dict(),
        "probe": probed.as_dict(),
        "measured_bytes": peak,
        "row": {"estimated": estimated.plan.row, "probed": probed.row},
        "estimate_over_measured": round(estimated.peak / peak, 3),
        "probe_over_measured": round(probed.peak / peak, 3),
        "tokens_per_second": report["tokens_per_second"],
        "hardware": report["hardware"],
        "versions": report["versions"],
    }


def run_config(point: Point, folder: Path) -> RunConfig:
    """Conversations that fill a row each but for a few tokens, half of them learned; two rows a step."""
    train = folder / f"{point.row_tokens}.jsonl"
    if not train.exists():
        words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
        said = [" ".join(words[(i + k) % 8] for k in range(point.row_tokens // 2 - 24)) for i in range(16)]
        lines = (
            {
                "messages": [
                    {"role": "user", "content": f"{words[i % 8]} {words[i // 8]} {text}"},
                    {"role": "assistant", "content": text},
                ]
            }
            for i, text in enumerate(said)
        )
        train.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return RunConfig(
        model=point.model if point.model == SMOLLM2 else str(model_directory(point.model, folder)),
        train_file=train,
        lora=LoraSettings(rank=point.rank),
        row_tokens=point.row_tokens,
        max_length=point.row_tokens,
        gradient_checkpointing=point.checkpointing,
        dtype=point.dtype,
        batch_size=2,
        max_steps=STEPS,
        checkpoint_every=0,
    )


def model_directory(name: str, folder: Path) -> Path:
    """Made once, by a process of its own: what this one holds would count in the peak of those it starts."""
    directory = folder / name
    if not directory.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.memory_estimate", "--make", name, str(directory)], check=True)
    return directory


def make_model(name: str, directory: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from ipytune.lora.quiet import quiet_libraries

    quiet_libraries()
    words = ["<unk>", "<start>", "<end>", "user", "assistant"]
    words += ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = (
        "{% for message in messages %}<start> {{ message['role'] }} {{ message['content'] }} <end> {% endfor %}"
        "{% if add_generation_prompt %}<start> assistant {% endif %}"
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = AutoConfig.for_model(**SHAPES[name], eos_token_id=2, pad_token_id=2)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two tiny models, under a minute")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="points whose name contains one of these")
    parser.add_argument("--output", type=Path, help="default: memory_estimate.json in benchmarks/results")
    parser.add_argument("--make", nargs=2, metavar=("SHAPE", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_model(arguments.make[0], Path(arguments.make[1]))
        return 0

    if arguments.output is None:
        name = "memory_estimate-smoke.json" if arguments.smoke else "memory_estimate.json"
        arguments.output = Path(__file__).parent / "results" / name

    points = [p for p in (SMOKE if arguments.smoke else POINTS) if any(n in p.name for n in arguments.only or [""])]
    results, load_before = [], os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        for point in points:
            results.append(found := measured(point, Path(folder)))
            print(
                f"{found['point']:<44} estimate {size(found['estimate']['peak']):>9} "
                f"({found['estimate_over_measured']:.2f})  probe {size(found['probe']['peak']):>9} "
                f"({found['probe_over_measured']:.2f})  measured {size(found['measured_bytes']):>9}",
                flush=True,
            )
    ratios = [result[f"{kind}_over_measured"] for result in results for kind in ("estimate", "probe")]
    holds = bool(ratios) and all(abs(ratio - 1) <= CLAIMED for ratio in ratios)
    print(f"within {CLAIMED:.0%}: {'yes' if holds else 'no'}")
    record = {
        "claim": f"estimate and probe are within {CLAIMED:.0%} of the measured peak",
        "holds": holds,
        "smoke": arguments.smoke,
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "points": results,
        "load_average": {"before": load_before, "after": os.getloadavg()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
