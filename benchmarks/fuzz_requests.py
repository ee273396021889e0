"""Claim: of 10,000 generated user_options each is accepted or refused with the field's name; nothing else happens.

    python benchmarks/fuzz_requests.py [--cases 10000] [--seed 0] [--output benchmarks/results/fuzz_requests.json]

Each case is a sound request into which nasty values are put, or something that is no request at all, sent through JSON
as REST would. Of an accepted one the job script of every Slurm target is rendered by the spawner that would submit it,
and read back: the user's values are single words of their own directives, and the rest of the script and the pod are
the same, letter for letter, as without them. Exit status 1 if there was anything else.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from hybridspawner.request import InvalidRequest, SpawnRequest, validate
from hybridspawner.site import Site
from tests.hybridspawner.carried_out import outcome
from tests.hybridspawner.sites import document, site

FIELDS = list(SpawnRequest.model_fields)
SOUND: dict[str, list[Any]] = {
    "profile": ["small", "gpu", None],
    "environment": ["torch", None],
    "target": ["auto", "pods", "alps", "here", None],
    "runtime": ["00:15:00", "02:00:00", "0-01:00:00", "04:00:00", None],
    "account": ["g1", "g2", "a.b-c_d+e", "A" * 64, None],
    "partition": ["normal", "debug", None],
    "reservation": ["course", "2024.x", None],
    "notebook": [
        "a.ipynb",
        "notebooks/01 first.ipynb",
        "{username}.ipynb",
        "a?b#c%2e.ipynb",
        "\u00e9t\u00e9/\u4e2d.ipynb",
        None,
    ],
    "lease": ["00:00:30", "00:02:00", "01:00:00", None],
}
NASTY: list[Any] = [
    *("", " ", "\n", "\0", "\r\n#SBATCH --uid=0", "normal\n#SBATCH --nodes=4", "x; rm -rf ~", "$(id)", "`id`", "a b"),
    *("--uid=0", "-x", "'", '"', "\\", "${HOME}", "{{ 7 * 7 }}", "{% raw %}", "{0.__class__}", "%(user)s", "..", "."),
    *("../../etc/passwd", "/etc/passwd", "~root/.ssh", "a/../b", "\u202egnp.exe", "\ufeff", "\u2028", "\x1b[31m"),
    *("\u0662\u0660:00:00", "\ud800", "\U0001f4a5", "AUTO", "Auto", "auto ", "null", "true", "NaN", "1e9", "2h"),
    *("00:00:00", "99:99:99", "-01:00:00", "999-00:00:00", "02:00", "a=b", "a,b", "a|b", "a\tb", "a\x7fb", "&amp;"),
    *("A" * 65, "A" * 1_000_000, "\u00e9" * 70, "<script>alert(1)</script>"),
    *(0, 1, -1, 7200, 10**400, 1.5, float("nan"), float("inf"), True, False),
    *([], ["02:00:00"], [[[]]], {}, {"a": 1}, {"$ne": None}, [None, {"x": [1, "y"]}]),
]
KEYS = [
    "",
    "x",
    "Profile",
    "profile ",
    "__proto__",
    "profile\n",
    "\0",
    "opt-profile",
    "pro\u0066ile\u200b",
    "A" * 10_000,
    "\ud800",
]


def generated(dice: random.Random, sound: dict[str, list[Any]] = SOUND) -> Any:
    """One case: mostly a request of `sound` values with up to three faults, sometimes no object at all."""
    if dice.random() < 0.03:
        return dice.choice([None, [], "", "profile", 1, True, float("nan"), [{"profile": "small"}], [[["x"] * 50]]])
    options = {f: dice.choice(sound[f]) for f in dice.sample(FIELDS, dice.randrange(len(FIELDS) + 1))}
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        if dice.random() < 0.12:
            options[dice.choice(KEYS)] = dice.choice(NASTY)
            continue
        field, value = dice.choice(FIELDS), dice.choice(NASTY)
        if isinstance(value, str) and len(value) < 100 and dice.random() < 0.5:  # hidden in or around a sound one
            around = dice.choice([v for v in sound[field] if v])
            at = dice.randrange(len(around) + 1)
            value = around[:at] + value + around[at:]
        if dice.random() < 0.1:
            value = "".join(
                chr(dice.choice([dice.randrange(128), dice.randrange(0xD7FF)])) for _ in range(dice.randrange(80))
            )
        options[field] = value
    return options


def open_site() -> Site:
    """A site that lists no accounts, partitions or reservations: users' own names get furthest there."""
    targets = [{k: v for k, v in t.items() if k not in ("partitions", "accounts")} for t in document()["targets"]]
    return site(targets=targets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "fuzz_requests.json")
    arguments = parser.parse_args()

    sites, dice, begun = [site(), open_site()], random.Random(arguments.seed), time.monotonic()
    counts: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    else_: list[dict[str, str]] = []
    for number in range(arguments.cases):
        options, at = json.loads(json.dumps(generated(dice))), sites[number % 2]
        try:
            counts[outcome(options, at)] += 1
        except Exception as error:
            else_.append({"options": ascii(options)[:500], "error": f"{type(error).__name__}: {error}"[:500]})
        else:
            fields[refused_field(options, at)] += 1
        if sys.stderr.isatty():
            print(f"\r{number + 1} {dict(counts)} anything else: {len(else_)}", end="", file=sys.stderr)
    result = {
        "claim": "accepted or refused with the field's name, and nothing else",
        "holds": not else_,
        "cases": arguments.cases,
        "seed": arguments.seed,
        "accepted": counts["accepted"],
        "refused": counts["refused"],
        "anything_else": len(else_),
        "examples_of_anything_else": else_[:10],
        "refused_by_field": {k[:40]: v for k, v in fields.most_common(12) if k},
        "seconds": round(time.monotonic() - begun, 1),
        "python": platform.python_version(),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if not else_ else 1


def refused_field(options: Any, at: Site) -> str:
    """The field that a refusal names; empty for an accepted request."""
    try:
        validate(options, at)
    except InvalidRequest as error:
        return error.field
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
