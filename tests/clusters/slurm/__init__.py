"""A private, real Slurm on one machine, for tests: Debian's slurmctld and slurmd under a state directory of its own.

    eval "$(python -m tests.clusters.slurm up --nodes 4 --gpus 4 [--dbd] [--rest])"
    python -m tests.clusters.slurm status
    python -m tests.clusters.slurm down

Promises: own ports, munge key and socket, so that it meddles neither with a system's Slurm nor with a second cluster of
another state directory; every node is idle when `up` returns; `up` leaves a healthy cluster alone and replaces a
half-dead one; `down` leaves no process, file or line of /etc/hosts behind.
"""

from tests.clusters.slurm.cluster import ClusterError, SlurmCluster
from tests.clusters.slurm.spec import SlurmSpec

__all__ = ["ClusterError", "SlurmCluster", "SlurmSpec"]
