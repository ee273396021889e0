"""FirecREST's answers, as its server gave them for the test cluster, and the scripts that go to it."""

from typing import Any

import pytest

from hybridspawner.site import SiteError, parse_site
from hybridspawner.targets.slurm import firecrest

JOB = {
    "jobId": "5",
    "name": "jupyterhub-12345678-0123456789abcdef",
    "status": {"state": "RUNNING", "stateReason": "None", "exitCode": 0, "interruptSignal": 0},
    "tasks": None,
    "time": {"elapsed": 2, "start": 1795328496, "end": None, "suspended": 0, "limit": 300},
    "account": "root",
    "allocationNodes": 1,
    "cluster": "oberalp",
    "group": "root",
    "nodes": "nid[000001-000002]",
    "partition": "normal",
    "killRequestUser": None,
    "user": "root",
    "workingDirectory": "/tmp",
    "priority": 4294901755,
}
NODE = {
    **{"sockets": 4, "cores": 4, "threads": 4, "cpus": 288, "cpuLoad": 0.55, "freeMemory": 19891, "features": "(null)"},
    **{"name": "nid000001", "address": "127.0.0.1", "hostname": "vm", "state": ["MIXED"], "weight": 1},
    **{
        "partitions": ["normal", "debug"],
        "slurmdVersion": "22.05.8",
        "allocMemory": 870000,
        "allocCpus": 72,
        "idleCpus": 216,
    },
}


def test_jobs() -> None:
    ended = {
        **JOB,
        "jobId": "6",
        "status": {"state": "CANCELLED by 0", "stateReason": "", "exitCode": 0, "interruptSignal": 15},
    }
    (name, running), (_, cancelled) = firecrest.readings([JOB, ended])
    assert name.startswith("jupyterhub-") and running.host == "nid000001" and running.exit_code is None
    assert cancelled.state == "CANCELLED" and cancelled.ended and cancelled.exit_code == 143


@pytest.mark.parametrize("answer", [None, {}, [{}], [{**JOB, "status": {"state": ""}}], [{**JOB, "status": None}]])
def test_an_answer_without_jobs_is_no_answer(answer: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        firecrest.readings(answer)


def test_nodes_and_the_gpus_that_the_site_gives_them() -> None:
    (mixed,) = firecrest.capacities([NODE])
    (idle,) = firecrest.capacities([{**NODE, "idleCpus": 288}])
    assert mixed.usable and mixed.memory_gb == pytest.approx(912.3, abs=0.1) and mixed.gpus == {}
    assert firecrest.with_gpus(mixed, {"gh200": 4}).gpus_free == {"gh200": 0}
    assert firecrest.with_gpus(idle, {"gh200": 4}).gpus_free == {"gh200": 4}
    states = {"DRAIN": "drained", "DOWN": "down", "OFFLINE": "reserved", "UNKNOWN": "down"}
    assert {s: firecrest.capacities([{**NODE, "state": [s]}])[0].state for s in states} == states


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/bash\n#SBATCH --job-name=jupyter-ada\n#SBATCH --time=5\ntrue\n",
        "#!/bin/bash\n#SBATCH -J jupyter-ada\n#SBATCH --time=5\ntrue\n",
        "#!/bin/bash\n#SBATCH --time=5\ntrue\n",
        "true\n",
    ],
)
def test_a_job_is_named_by_its_mark(script: str) -> None:
    text = firecrest.named(script, "mark-1")
    assert text.startswith("#!") and text.count("#SBATCH --job-name=mark-1\n") == 1 and "jupyter-ada" not in text


def site(**target: Any) -> Any:
    return parse_site(
        {
            "targets": [{"name": "cluster", "kind": "slurm", "title": "Cluster", **target}],
            "environments": [{"name": "e", "title": "E", "targets": {"cluster": {"python": "python3"}}}],
            "profiles": [{"name": "p", "title": "P"}],
        }
    ).targets[0]


FIRECREST = {
    **{"kind": "firecrest", "url": "https://api.example.org/hpc/firecrest/v2", "system": "daint", "client_id": "hub"},
    **{"token_url": "https://auth.example.org/token", "client_secret_file": "/etc/hub/secret"},
}


def test_transports_of_a_site() -> None:
    assert site().transport.kind == "local"
    ssh = site(transport={"kind": "ssh", "host": "login.example.org", "launcher": "/opt/oberalp/launcher.py"}).transport
    assert ssh.port == 22 and ssh.known_hosts.startswith("/")
    assert site(run_as="hub", transport=FIRECREST).transport.system == "daint"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"transport": FIRECREST}, "run_as must be `hub`"),
        ({"run_as": "hub", "transport": {**FIRECREST, "client_secret_env": "S"}}, "either client_secret_file"),
        (
            {"transport": {"kind": "rest", "url": "http://rest.example.org:6820"}},
            "either jwt_key_file or token_command",
        ),
        ({"transport": {"kind": "rest", "url": "rest.example.org", "jwt_key_file": "/k"}}, "transport.rest.url"),
        ({"transport": {"kind": "rest", "url": "http://u:p@rest", "jwt_key_file": "/k"}}, "transport.rest.url"),
        ({"transport": {"kind": "ssh", "host": "-oProxyCommand=x", "launcher": "/l"}}, "transport.ssh.host"),
        ({"transport": {"kind": "ssh", "host": "h", "launcher": "/l", "key_file": "key"}}, "not an absolute path"),
        ({"transport": {"kind": "smoke"}}, "smoke"),
    ],
)
def test_a_transport_that_cannot_be(target: dict[str, Any], message: str) -> None:
    with pytest.raises(SiteError, match=message):
        site(**target)
