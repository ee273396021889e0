"""The command line: `up` prints lines to `eval`, everything for people goes to standard error."""

import argparse
import shlex
import sys
import time

from tests.clusters.slurm import __doc__ as description
from tests.clusters.slurm.cluster import ClusterError, SlurmCluster
from tests.clusters.slurm.spec import SlurmSpec


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clusters.slurm",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The state lies in $OBERALP_SLURM_STATE; default: oberalp-slurm below the system's temporary directory.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start a cluster, or leave a healthy one running; print its environment")
    up.add_argument("--nodes", type=int, default=SlurmSpec.nodes, help="nodes nid000001... (default: %(default)s)")
    up.add_argument("--gpus", type=int, default=SlurmSpec.gpus, help="GPUs of each node (default: %(default)s)")
    up.add_argument("--dbd", action="store_true", help="accounting: MariaDB and slurmdbd, for sacct and sacctmgr")
    up.add_argument("--rest", action="store_true", help="Slurm's REST API with tokens; implies --dbd")
    up.add_argument("--limits", action="store_true", help="accounts, QoS and memory are enforced; implies --dbd")
    verbs.add_parser("down", help="end the cluster and its jobs, remove everything")
    verbs.add_parser("status", help="daemons and nodes; exit code 0 only when all are well")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "up":
            return _up(SlurmSpec(arguments.nodes, arguments.gpus, arguments.dbd, arguments.rest, arguments.limits))
        if arguments.verb == "down":
            SlurmCluster().down()
            return 0
        return _status()
    except (ClusterError, ValueError) as error:
        print(f"slurm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # what had been started is gone again


def _up(spec: SlurmSpec) -> int:
    begun = time.monotonic()
    cluster = SlurmCluster(spec).up()
    for name, value in cluster.env.items():
        print(f"export {name}={shlex.quote(value)}")
    seconds = time.monotonic() - begun
    print(f"slurm: {spec.nodes} nodes idle after {seconds:.1f} s, state in {cluster.layout.root}", file=sys.stderr)
    if spec.rest:
        print("slurm: a token for the REST API: scontrol token lifespan=3600 [username=NAME]", file=sys.stderr)
    return 0


def _status() -> int:
    cluster = SlurmCluster()
    if not cluster.record:
        print(f"no cluster in {cluster.layout.root}")
        return 1
    for name, pid in cluster.daemons().items():
        print(f"{name:20} {f'pid {pid}' if pid else 'NOT RUNNING'}")
    healthy = cluster.running
    if cluster.daemons()["slurmctld"]:
        print(cluster.run("sinfo", check=False).stdout, end="")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
