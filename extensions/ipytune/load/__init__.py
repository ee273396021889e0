"""Load on an endpoint, and what it does under it: TTFT, ITL, TPOT, throughput and goodput against rate or concurrency.

    from ipytune.load import Plan, load

    report = load(endpoint, Plan(concurrency=(1, 2, 4, 8), duration=20, objectives={"ttft": 0.5, "tpot": 0.05}))
    report.write("load-of-my-server")     # report.json, report.html, report.csv

The measuring client is a process of its own (or several), so that neither a notebook's kernel nor its panels take
time from it; what it cannot keep up with it says (`client_limited`).
"""

from ipytune.load.plan import Objectives, Plan, planned
from ipytune.load.report import LoadReport, StepResult
from ipytune.load.run import LoadFailed, LoadInterrupted, LoadRun, Progress, load, start

__all__ = [
    "LoadFailed",
    "LoadInterrupted",
    "LoadReport",
    "LoadRun",
    "Objectives",
    "Plan",
    "Progress",
    "StepResult",
    "load",
    "planned",
    "start",
]
