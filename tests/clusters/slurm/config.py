"""The configuration files of a test cluster, as text. Pure: a spec, ports and a layout in, the file's content out.

The nodes look like GH200 nodes: 4 superchips of 72 cores, about 850 GiB of memory, GPUs of type `gh200`.
"""

from tests.clusters.slurm.spec import Layout, Ports, SlurmSpec

CLUSTER_NAME = "oberalp"
CPUS, REAL_MEMORY = 288, 870_000  # of one node; memory in MiB
DATABASE_USER = "slurm"


def slurm_conf(spec: SlurmSpec, ports: Ports, layout: Layout, hostname: str) -> str:
    """slurm.conf: every daemon on this host, each node a slurmd with a port of its own."""
    last = spec.nodes - 1
    lines = [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={hostname}(127.0.0.1)",
        "SlurmUser=root",
        f"SlurmctldPort={ports.controller}",
        # Listen on 127.0.0.1, not on every interface of the machine.
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"AuthInfo=socket={layout.munge_socket}",
        f"StateSaveLocation={layout.controller_state}",
        f"SlurmdSpoolDir={layout.node_spool}-%n",
        f"SlurmctldPidFile={layout.pids}/slurmctld.daemon",
        f"SlurmdPidFile={layout.pids}/slurmd-%n.daemon",
        f"SlurmctldLogFile={layout.logs}/slurmctld.log",
        f"SlurmdLogFile={layout.logs}/slurmd-%n.log",
        "SlurmdParameters=config_overrides",  # 288 CPUs are declared, whatever this machine has
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MailProg=/bin/true",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        f"DefMemPerCPU={REAL_MEMORY // CPUS}",
        "SchedulerType=sched/backfill",
        # Tests wait for the scheduler; a site's intervals (60 s and 30 s) would be most of their time.
        "SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0",
        "JobRequeue=0",
        "KillWait=2",
        "ReturnToService=2",
        "SlurmctldTimeout=60",
        "SlurmdTimeout=120",  # generous: a busy test machine is no failed node (`fail_node` says so at once)
        "PropagateResourceLimits=NONE",
        *_gpu_lines(spec),
        *_accounting_lines(spec, ports, layout),
        f"NodeName=nid[000001-{spec.nodes:06d}] NodeHostname={hostname} NodeAddr=127.0.0.1 "
        f"Port=[{ports.first_node}-{ports.first_node + last}] CPUs={CPUS} Boards=1 SocketsPerBoard=4 "
        f"CoresPerSocket=72 ThreadsPerCore=1 RealMemory={REAL_MEMORY}"
        + (f" Gres=gpu:gh200:{spec.gpus}" if spec.gpus else ""),
        # The limits that notebooks meet at an Alps-like site; nodes are shared here, so that tests need few.
        "PartitionName=normal Nodes=ALL Default=YES DefaultTime=01:00:00 MaxTime=12:00:00 State=UP",
        "PartitionName=debug Nodes=ALL DefaultTime=00:10:00 MaxTime=00:30:00 PriorityTier=2 State=UP",
    ]
    return "\n".join(lines) + "\n"


def _gpu_lines(spec: SlurmSpec) -> list[str]:
    return ["GresTypes=gpu"] if spec.gpus else []


def _accounting_lines(spec: SlurmSpec, ports: Ports, layout: Layout) -> list[str]:
    lines = []
    if spec.dbd:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={ports.accounting}",
            f"AccountingStoragePass={layout.munge_socket}",
            "AccountingStorageTRES=gres/gpu" if spec.gpus else "",
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=1" if spec.limits else "JobAcctGatherFrequency=5",
        ]
    if spec.limits:
        lines += [
            "AccountingStorageEnforce=associations,limits,qos",
            # there are no cgroups here: whoever gathers a job's memory also ends the job that has too much
            "JobAcctGatherParams=OverMemoryKill",
        ]
    if spec.rest:
        lines += ["AuthAltTypes=auth/jwt", f"AuthAltParameters=jwt_key={layout.jwt_key}"]
    return [line for line in lines if line]


def gres_conf(spec: SlurmSpec, layout: Layout) -> str:
    """gres.conf: one device file for each GPU; Slurm only looks at its number, which CUDA_VISIBLE_DEVICES repeats."""
    if not spec.gpus:
        return ""
    devices = f"{layout.devices}/gpu[0-{spec.gpus - 1}]"
    return f"NodeName=nid[000001-{spec.nodes:06d}] Name=gpu Type=gh200 File={devices}\n"


def slurmdbd_conf(spec: SlurmSpec, ports: Ports, layout: Layout, password: str) -> str:
    """slurmdbd.conf: holds the database's password, so its file must have mode 600 (slurmdbd insists)."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "DbdHost=localhost",
        "DbdAddr=127.0.0.1",
        f"DbdPort={ports.accounting}",
        "SlurmUser=root",
        f"LogFile={layout.logs}/slurmdbd.log",
        f"PidFile={layout.pids}/slurmdbd.daemon",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",
        f"StoragePort={ports.database}",
        f"StorageUser={DATABASE_USER}",
        f"StoragePass={password}",
        "StorageLoc=slurm_acct_db",
        "CommitDelay=0",
    ]
    if spec.rest:
        lines += ["AuthAltTypes=auth/jwt", f"AuthAltParameters=jwt_key={layout.jwt_key}"]
    return "\n".join(lines) + "\n"


def database_conf(ports: Ports, layout: Layout) -> str:
    """my.cnf of the accounting database: durability is off, since the data ends with the cluster."""
    return "\n".join(
        [
            "[mariadbd]",
            "user=mysql",
            f"datadir={layout.database}/data",
            f"socket={layout.database}/socket",
            f"pid-file={layout.database}/daemon",
            f"log-error={layout.database}/log",
            f"init-file={layout.database}/init.sql",
            "bind-address=127.0.0.1",
            f"port={ports.database}",
            "innodb_buffer_pool_size=64M",
            "innodb_log_file_size=16M",
            "innodb_lock_wait_timeout=900",
            "innodb_flush_log_at_trx_commit=0",
            "skip-name-resolve",
            "",
        ]
    )


def database_init_sql(password: str) -> str:
    """Statements that mariadbd runs at each start: slurmdbd's user, who makes the database itself."""
    user = f"'{DATABASE_USER}'@'127.0.0.1'"
    return (
        f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}';\n"
        f"GRANT ALL PRIVILEGES ON slurm_acct_db.* TO {user};\n"
    )
