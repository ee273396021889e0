"""What a test cluster is made of: its size and options, its ports, its files. Data only."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

STATE_VARIABLE = "OBERALP_SLURM_STATE"


@dataclass(frozen=True)
class SlurmSpec:
    """Size and options of a cluster: `nodes` nodes of `gpus` GPUs each, with accounting (`dbd`), with a REST API.

    `limits`: accounts, QoS and their limits are enforced, and so is memory; who has no association may not submit.
    """

    nodes: int = 4
    gpus: int = 4
    dbd: bool = False
    rest: bool = False
    limits: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 1000:
            raise ValueError(f"nodes must be between 1 and 1000, not {self.nodes}")
        if not 0 <= self.gpus <= 64:
            raise ValueError(f"gpus (per node) must be between 0 and 64, not {self.gpus}")
        if (self.rest or self.limits) and not self.dbd:
            # slurmrestd 22.05 loads its accounting plug-in always, and that one needs slurmdbd.
            object.__setattr__(self, "dbd", True)

    @property
    def node_names(self) -> list[str]:
        return [f"nid{number:06d}" for number in range(1, self.nodes + 1)]


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1: four daemons, then one for each node from `first_node` on."""

    controller: int
    accounting: int
    database: int
    rest: int
    first_node: int

    @classmethod
    def from_base(cls, base: int) -> "Ports":
        return cls(base, base + 1, base + 2, base + 3, base + 4)


@dataclass(frozen=True)
class Layout:
    """Where everything of one cluster lies: all of it below `root`."""

    root: Path

    @classmethod
    def default(cls) -> "Layout":
        """$OBERALP_SLURM_STATE, else a directory below the system's for temporary files."""
        chosen = os.environ.get(STATE_VARIABLE)
        return cls(Path(chosen) if chosen else Path(tempfile.gettempdir()) / "oberalp-slurm")

    @property
    def record(self) -> Path:  # also the mark that the directory is ours to remove
        return self.root / "cluster.json"

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def gres_conf(self) -> Path:
        return self.root / "etc" / "gres.conf"

    @property
    def dbd_conf(self) -> Path:
        return self.root / "etc" / "slurmdbd.conf"

    @property
    def jwt_key(self) -> Path:
        return self.root / "etc" / "jwt.key"

    @property
    def devices(self) -> Path:
        return self.root / "dev"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def pids(self) -> Path:
        return self.root / "run"

    @property
    def controller_state(self) -> Path:
        return self.root / "spool" / "slurmctld"

    @property
    def node_spool(self) -> Path:
        return self.root / "spool" / "slurmd"

    @property
    def munge(self) -> Path:
        return self.root / "munge"

    @property
    def munge_socket(self) -> Path:
        return self.munge / "socket"

    @property
    def database(self) -> Path:
        return self.root / "db"


@dataclass(frozen=True)
class Record:
    """What `up` writes down of a cluster, for every later command."""

    spec: SlurmSpec
    ports: Ports

    def to_json(self) -> str:
        return json.dumps({"spec": asdict(self.spec), "ports": asdict(self.ports)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Raises ValueError, KeyError or TypeError on anything that `to_json` did not write."""
        data = json.loads(text)
        return cls(SlurmSpec(**data["spec"]), Ports(**data["ports"]))
