"""What a request becomes on its targets, for tests of whatever users may send: nothing but words in their own places.

`outcome` is the whole claim: any `user_options` is refused with the field's name, or carried out with each of the user's
values as exactly one word of one directive, the rest of the script and the pod being the site's, letter for letter.
"""

import re
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from hybridspawner.request import InvalidRequest, SpawnRequest, candidates, slurm_targets, validate
from hybridspawner.site import KubernetesTarget, Site, SlurmTarget
from hybridspawner.targets.base import Launch
from hybridspawner.targets.kubernetes import Kubernetes
from hybridspawner.targets.kubernetes.spawner import KubernetesSessionSpawner
from hybridspawner.targets.slurm import Slurm
from hybridspawner.targets.slurm.requirements import estimate_variables, requirements
from hybridspawner.targets.slurm.script import TEMPLATE, render
from hybridspawner.targets.slurm.spawner import SlurmSessionSpawner

OPTIONS = {
    "partition": "--partition",
    "account": "--account",
    "reservation": "--reservation",
    "runtime": "--time",
    "nodes": "--nodes",
    "nprocs": "--cpus-per-task",
    "memory": "--mem",
    "gres": "--gres",
}
_MESSAGE = re.compile(r"[^\x00-\x1f\x7f]+")
_URL_PATH = re.compile(r"/lab/tree/[A-Za-z0-9_.~/%-]+", re.ASCII)


def outcome(options: Any, site: Site) -> str:
    """ "accepted" or "refused"; AssertionError, or whatever was raised, if it is neither as it should be."""
    try:
        request = validate(options, site)
    except InvalidRequest as error:
        text = str(error)
        assert error.field and text.startswith(error.field) and error.allowed, text
        assert _MESSAGE.fullmatch(text) and len(text) < 2000, text
        text.encode()  # a message that cannot be sent is no answer
        return "refused"
    assert validate(request.model_dump(), site) == request
    names = candidates(site, site.profile(request.profile), site.environment(request.environment), ())
    if request.notebook is not None:
        page = request.start_page or ""
        assert _URL_PATH.fullmatch(page) and unquote(page) == f"/lab/tree/{request.notebook}", page
    for name in slurm_targets(request, site, names):
        target = site.target(name)
        launch = _launch(request, site, name)
        if isinstance(target, SlurmTarget):
            _check_script(target, launch, session_script(target, launch), session_script(target, _plain(launch)))
            estimates = [render(TEMPLATE, estimate_variables(target, x)) for x in (launch, _plain(launch))]
            _check_script(target, launch, *estimates)
        elif isinstance(target, KubernetesTarget):
            _check_pod(target, launch)
    return "accepted"


def _launch(request: SpawnRequest, site: Site, target: str) -> Launch:
    realisation = site.environment(request.environment).targets[target]
    return Launch(request, site.profile(request.profile).resources, realisation)


def _plain(launch: Launch) -> Launch:
    """The same launch without anything that a user typed."""
    request = SpawnRequest(profile=launch.request.profile, environment=launch.request.environment, runtime="00:15:00")
    return Launch(request, launch.resources, launch.realisation)


def session_script(target: SlurmTarget, launch: Launch) -> str:
    """The job script of a session, by the very spawner that submits it."""
    child = SlurmSessionSpawner(user=SimpleNamespace(name="ada"))
    child.req_keepvars, child.get_args = "", list
    Slurm(target.model_copy(update={"home": "/home/{username}", "run_as": "user"}), "http://hub/port").prepare(
        child, launch
    )
    return render(child.batch_script, {**child.get_req_subvars(), "cmd": child.cmd_formatted_for_batch()})


def directives(script: str) -> tuple[list[str], str]:
    """The words after `#SBATCH` as sbatch reads them (up to the first line that is no comment), and all the rest."""
    lines = script.split("\n")
    assert lines[0] == "#!/bin/bash"
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    found = [line.removeprefix("#SBATCH ") for line in lines[:end] if line.startswith("#SBATCH ")]
    return found, "\n".join(line for line in lines if not line.startswith("#SBATCH "))


def _check_script(target: SlurmTarget, launch: Launch, script: str, plain: str) -> None:
    found, rest = directives(script)
    usual, usual_rest = directives(plain)
    assert rest == usual_rest, "a user's value is outside the directives"
    asked = {OPTIONS[name]: value for name, value in requirements(target, launch).items()}
    site_s = [word for word in usual if word.split("=")[0] not in OPTIONS.values()]
    assert sorted(found) == sorted([*site_s, *(f"{option}={value}" for option, value in asked.items())])
    for option, field in (("--account", "account"), ("--partition", "partition"), ("--reservation", "reservation")):
        value = getattr(launch.request, field)
        if value is not None:
            assert f"{option}={value}" in found and re.fullmatch(r"[A-Za-z0-9_.+-]+", value, re.ASCII)
    assert f"--time={launch.request.runtime}" in found


def pod_traits(target: KubernetesTarget, launch: Launch) -> dict[str, Any]:
    """The traits that a launch sets on the spawner of its pod."""
    child = _Recorder()
    Kubernetes(target).prepare(child, launch)
    return child.__dict__


class _Recorder:
    """Takes traits as KubeSpawner does, beginning with its defaults."""

    def __init__(self) -> None:
        self.user = SimpleNamespace(name="ada")

    def __getattr__(self, name: str) -> Any:
        return _defaults()[name]

    def has_trait(self, name: str) -> bool:
        return name in _defaults()


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return {name: trait.default() for name, trait in KubernetesSessionSpawner.class_traits().items()}


def _check_pod(target: KubernetesTarget, launch: Launch) -> None:
    pod, plain = pod_traits(target, launch), pod_traits(target, _plain(launch))
    assert pod["extra_pod_config"].pop("activeDeadlineSeconds") == launch.request.seconds
    plain["extra_pod_config"].pop("activeDeadlineSeconds")
    pod.pop("user"), plain.pop("user")
    assert pod == plain, "a user's value is in the pod"
