"""Why a job waits: Slurm's reasons (job_reason_string, 22.05 to 25.05) in plain words, and which of them never pass."""

from __future__ import annotations

import re
from typing import NamedTuple

_REASONS = {
    "None": "the scheduler has not looked at it yet",
    "Priority": "other jobs are ahead of it",
    "Resources": "it waits for nodes to become free",
    "Dependency": "it waits for another job",
    "Reservation": "it waits for its reservation to begin",
    "ReservationDeleted": "its reservation was deleted",
    "JobHeldUser": "it is held by you or in your name; release it with `scontrol release` and its number",
    "JobHeldAdmin": "the site holds it; ask its support to release it",
    "launch failed requeued held": "a node could not start it, and Slurm holds it; release it with `scontrol release`",
    "JobHoldMaxRequeue": "nodes failed to start it too often, and Slurm holds it",
    "BeginTime": "its begin time has not come",
    "Licenses": "it waits for a licence",
    "Cleaning": "Slurm still cleans up after its last run",
    "Prolog": "the node is being prepared",
    "NodeDown": "the node that it needs is down",
    "BootFail": "the node that it needs could not be started",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs at the moment",
    "PartitionConfig": "the partition does not offer what it asks for at the moment",
    "ReqNodeNotAvail": "the nodes that it needs are down or reserved",
    "Nodes required for job are DOWN": "the nodes that could take it are down, drained or kept for more urgent jobs",
    "JobArrayTaskLimit": "as many tasks of its array run as may",
    "SystemFailure": "Slurm has a fault; the site knows or should be told",
    "FedJobLock": "another cluster of the federation looks at it",
    "QOSUsageThreshold": "your project has used more than its share",
    "AssociationJobLimit": "you or your project have as many running jobs as allowed",
    "AssociationResourceLimit": "you or your project use as much as allowed",
    "QOSJobLimit": "as many jobs of the quality of service run as allowed",
    "QOSResourceLimit": "the quality of service is used as much as allowed",
}

# reasons that no waiting removes: (why, remedy, label); those of _PARTITION hold for one partition only
_NEVER = {
    "BadConstraints": (
        "No node of the partition can ever fulfil the request.",
        "Choose another profile or partition.",
        "no_such_node",
    ),
    "InvalidAccount": ("The account is not valid any more.", "Choose another account.", "invalid_account"),
    "AccountNotAllowed": (
        "The account may not use the partition.",
        "Choose another account or partition.",
        "invalid_account",
    ),
    "InvalidQOS": ("The quality of service is not valid any more.", "Tell the site's support.", "invalid_qos"),
    "QOSNotAllowed": (
        "The quality of service may not be used in the partition.",
        "Choose another partition, or tell the site's support.",
        "invalid_qos",
    ),
    "QOSTimeLimit": ("It asks for more time than the quality of service allows.", "Ask for less time.", "time_limit"),
    "AssociationTimeLimit": ("It asks for more time than your account allows.", "Ask for less time.", "time_limit"),
    "PartitionTimeLimit": ("It asks for more time than the partition allows.", "Ask for less time.", "time_limit"),
    "PartitionNodeLimit": (
        "It asks for more or fewer nodes than the partition allows.",
        "Choose another profile or partition.",
        "limit",
    ),
    "ReservationDeleted": (
        "Its reservation was deleted.",
        "Choose another reservation or none.",
        "invalid_reservation",
    ),
    "DependencyNeverSatisfied": ("The job that it waits for has failed.", "Start again.", "dependency"),
    "JobHoldMaxRequeue": (
        "Nodes failed to start it too often, and Slurm holds it.",
        "Start again; if it happens again, tell the site's support.",
        "node_fail",
    ),
}
_PARTITION = frozenset(
    {"PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "AccountNotAllowed", "QOSNotAllowed"}
)

_LIMIT = re.compile(
    r"(?P<owner>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<thing>CPU|Cpu|GRES|Gres|Mem|Node|Job|Submit|Wall|Billing|Energy|BB|License|FS|Pages|VMem|Unknown)"
    r"(?:Jobs?|Duration|ory|s)?(?P<minutes>(?:Run)?Min(?:ute)?s)?"
    r"(?:Per(?P<scope>Job|Node|User|Account))?(?:Limit|NotSatisfied)?",
)
_THINGS = {
    "cpu": "many cores",
    "gres": "many GPUs",
    "mem": "much memory",
    "node": "many nodes",
    "job": "many running jobs",
    "submit": "many jobs",
    "wall": "much time",
    "license": "many licences",
    "billing": "much of the budget",
}


class Limit(NamedTuple):
    """A limit of an account or a quality of service. `never`: the request alone is over it, waiting does not help."""

    sentence: str
    remedy: str
    label: str
    never: bool


def limit_of(reason: str) -> Limit | None:
    """The limit that `reason` names (`QOSMaxJobsPerUserLimit`, `AssocGrpGRES`, `MaxCpuPerAccount`), or None."""
    match = _LIMIT.fullmatch(reason)
    if match is None:
        return None
    owner = {"QOS": "the quality of service", "Assoc": "your account"}.get(match["owner"] or "", "the site")
    amount = _THINGS.get(match["thing"].lower(), "much of a resource")
    quantity, _, thing = amount.partition(" ")
    wall = match["thing"] == "Wall"
    if match["minutes"]:
        amount, thing = f"{amount} for so long", f"{thing} for so long"
    if match["kind"] == "Min":
        fewer = "fewer" if quantity == "many" else "less"
        return Limit(f"It asks for {fewer} {thing} than {owner} wants.", "Choose a larger profile.", "limit", True)
    if match["kind"] == "Max" and (wall or match["scope"] in ("Job", "Node")):
        remedy = "Ask for less time." if wall or match["minutes"] else "Choose a smaller profile."
        within = "one node" if match["scope"] == "Node" else "one job"
        sentence = f"It asks for more {thing} than {owner} allows {within}."
        return Limit(sentence, remedy, "time_limit" if wall else "limit", True)
    wait = "Wait, or choose another account."
    if match["kind"] == "Grp":
        ours = match["owner"] == "Assoc"
        if match["minutes"] or wall:
            who = "your project" if ours else owner
            spent = f"The time that {who} may use is used up or promised to running jobs."
            return Limit(spent, "Choose another account, ask for less time, or wait.", "limit", False)
        who = "Your project has" if ours else "All jobs of the quality of service together have"
        return Limit(f"{who} as {amount} as allowed.", wait, "limit", False)
    if match["scope"] == "Account":
        return Limit(f"Your project has as {amount} as {owner} allows an account.", wait, "limit", False)
    remedy = "Stop one of your sessions or jobs, or ask for less."
    return Limit(f"You have as {amount} as {owner} allows one user.", remedy, "limit", False)


def reason_words(reason: str) -> str:
    """`reason` as squeue prints it, in words that follow "In the queue: "."""
    code, _, rest = (part.strip() for part in reason.strip("() ").partition(","))
    if not code:
        return _REASONS["None"]
    if code == "ReqNodeNotAvail" and "maintenance" in rest.lower():
        return "a maintenance begins before it would end; asking for less time may let it start earlier"
    if code == "ReqNodeNotAvail" and (nodes := re.search(r"UnavailableNodes:(\S+)", rest)):
        return f"{_REASONS[code]} ({nodes[1]})"
    if code in _REASONS:
        return _REASONS[code]
    found = _NEVER.get(code)
    if found is not None:
        return _clause(found[0], found[1])
    limit = limit_of(code)
    if limit is not None:
        return _clause(limit.sentence, limit.remedy)
    return f"Slurm says {reason}"


def _clause(sentence: str, remedy: str) -> str:
    """Two sentences as one clause in the middle of a sentence."""
    return "; ".join(part[0].lower() + part[1:].rstrip(".") for part in (sentence, remedy))


def unsatisfiable(reason: str, several: bool = False) -> tuple[str, str, str] | None:
    """(why, remedy, label) of a reason that no waiting removes, else None. `several`: it may use several partitions."""
    code = reason.strip("() ").partition(",")[0].strip()
    if code in _PARTITION and several:
        return None
    if code in _NEVER:
        return _NEVER[code]
    limit = limit_of(code)
    if limit is not None and limit.never:
        return limit.sentence, limit.remedy, limit.label
    return None
