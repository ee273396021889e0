"""Makes the data set of the first task, the same for the same seed: `python -m ipytune.data.slurm_headers.generate`.

A job is drawn, and worded with a template drawn for each of its parts; the answer is the job's one canonical header.
What is held out are combinations: each value of nodes, GPUs, time and partition occurs in training, but the triples
(nodes, GPUs per node, time) of the held-out jobs never do. A model that memorises triples fails.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 20261122
TRAIN, HELD_OUT = 440, 120
SYSTEM = "Write the Slurm header."

NODES = (1, 2, 3, 4, 6, 8, 12, 16)
GPUS = (1, 2, 3, 4)
MINUTES = (15, 30, 45, 60, 120, 180, 240, 360, 480, 720)
PARTITIONS = ("normal", "debug", "long", "large")
MEMORY_GB = (16, 32, 64, 120, 200, 400)
RESERVATIONS = ("course", "school", "workshop")
ACCOUNTS = ("g12", "g34", "ml01", "csstaff")
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 6: "six", 8: "eight", 12: "twelve", 16: "sixteen"}

Conversation = dict[str, list[dict[str, str]]]


@dataclass(frozen=True)
class Job:
    """What is asked of Slurm; None is what the request leaves open."""

    nodes: int
    gpus: int
    minutes: int
    partition: str
    memory_gb: int | None
    account: str | None
    reservation: str | None

    @property
    def combination(self) -> tuple[int, int, int]:
        return self.nodes, self.gpus, self.minutes


def header(job: Job) -> str:
    """The one right answer: long options in a fixed order, the time as HH:MM:SS, nothing that was not asked for."""
    options = [
        ("nodes", job.nodes),
        ("gpus-per-node", job.gpus),
        ("time", f"{job.minutes // 60:02d}:{job.minutes % 60:02d}:00"),
        ("partition", job.partition),
        ("mem", None if job.memory_gb is None else f"{job.memory_gb}G"),
        ("account", job.account),
        ("reservation", job.reservation),
    ]
    return "\n".join(f"#SBATCH --{name}={value}" for name, value in options if value is not None)


def draw(source: random.Random, combination: tuple[int, int, int]) -> Job:
    """A job with the given nodes, GPUs and minutes, and some of the optional parts."""

    def sometimes(share: float, values: tuple[str, ...]) -> str | None:
        return source.choice(values) if source.random() < share else None

    nodes, gpus, minutes = combination
    return Job(
        nodes,
        gpus,
        minutes,
        partition=source.choice(PARTITIONS),
        memory_gb=source.choice(MEMORY_GB) if source.random() < 0.25 else None,
        account=sometimes(0.25, ACCOUNTS),
        reservation=sometimes(0.2, RESERVATIONS),
    )


def wording(source: random.Random, job: Job) -> str:
    """One way to ask for the job: parts in a varying order, numbers in words or digits, sometimes a polite frame."""
    size = _size(source, job)
    partition = _any(source, "partition {0}", "on the {0} partition", "in partition {0}", "queue {0}")
    details = [_time(source, job.minutes), partition.format(job.partition)]
    if job.memory_gb is not None:
        details.append(_any(source, "{0} GB of memory", "memory {0} GB", "with {0} GB memory").format(job.memory_gb))
    if job.reservation is not None:
        details.append(_any(source, "reservation {0}", "in reservation {0}").format(job.reservation))
    if job.account is not None:
        details.append(_any(source, "account {0}", "on account {0}").format(job.account))
    source.shuffle(details)
    if source.random() < 0.25:
        text = source.choice(("", "please: ", "request: ")) + ", ".join([details[0], size, *details[1:]])
    else:
        frames = ("{0}", "{0}", "I need {0}", "please give me {0}", "run on {0}", "can I get {0}?", "{0}, please")
        text = source.choice(frames).format(", ".join([size, *details]))
    return text[0].upper() + text[1:] if source.random() < 0.5 else text


def examples(seed: int = SEED, train: int = TRAIN, held_out: int = HELD_OUT) -> tuple[list[Job], list[Job]]:
    """The jobs of both splits; their combinations are disjoint, each value of a held-out one occurs in training."""
    source = random.Random(seed)
    combinations = [(n, g, m) for n in NODES for g in GPUS for m in MINUTES]
    source.shuffle(combinations)
    kept, trained = combinations[:held_out], combinations[held_out:]
    return [draw(source, trained[i % len(trained)]) for i in range(train)], [draw(source, c) for c in kept]


def conversations(
    seed: int = SEED, train: int = TRAIN, held_out: int = HELD_OUT
) -> tuple[list[Conversation], list[Conversation]]:
    """Both splits as chat conversations, no request twice."""
    source = random.Random(seed + 1)
    seen: set[str] = set()

    def conversation(job: Job) -> Conversation:
        text = wording(source, job)
        while text in seen:
            text = wording(source, job)
        seen.add(text)
        return {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": text},
                {"role": "assistant", "content": header(job)},
            ]
        }

    first, second = examples(seed, train, held_out)
    return [conversation(job) for job in first], [conversation(job) for job in second]


def _size(source: random.Random, job: Job) -> str:
    nodes, gpus = _number(source, job.nodes), _number(source, job.gpus)
    node_word, gpu_word = _plural(job.nodes, "node"), _plural(job.gpus, "GPU")
    if job.nodes == 1 and source.random() < 0.4:
        return _any(source, "{0} {1} on one node", "a single node with {0} {1}").format(gpus, gpu_word)
    form = _any(
        source,
        "{0} {1}, {2} {3} each",
        "{0} {1} with {2} {3}",
        "{0} {1} with {2} {3} per node",
        "{2} {3} on each of {0} {1}",
        "{0} {1} x {2} {3}",
        "{2} {3} per node on {0} {1}",
    )
    return form.format(nodes, node_word, gpus, gpu_word)


def _time(source: random.Random, minutes: int) -> str:
    hours = minutes // 60
    forms = [f"{minutes} minutes", f"{minutes} min"] if minutes % 60 else []
    if minutes == 30:
        forms += ["half an hour"]
    if minutes % 60 == 0:
        count = _number(source, hours)
        forms += [f"{count} {_plural(hours, 'hour')}", f"{count} {_plural(hours, 'hour')}", f"{hours}h"]
    if minutes == 60:
        forms += ["an hour"]
    return source.choice(("", "for ", "for ", "time limit ", "up to ")) + source.choice(forms)


def _number(source: random.Random, value: int) -> str:
    return WORDS[value] if value in WORDS and source.random() < 0.5 else str(value)


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _any(source: random.Random, *forms: str) -> str:
    return source.choice(forms)


def main() -> None:
    folder = Path(__file__).parent
    for name, split in zip(("train", "heldout"), conversations(), strict=True):
        lines = (json.dumps(conversation) for conversation in split)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
