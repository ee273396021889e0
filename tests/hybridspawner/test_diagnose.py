"""Slurm's words and the logs of sessions, as Slurm 22.05 to 25.05, bash and Python write them, into plain words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridspawner.diagnose import StartFailed, process
from hybridspawner.diagnose import slurm as diagnose
from hybridspawner.diagnose.log import MASK, clue, find_clue, hub_unreachable, without_secrets
from hybridspawner.diagnose.slurm_reasons import limit_of, reason_words

SBATCH = "sbatch: error: Batch job submission failed: "
POLICY = SBATCH + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
LOGS = st.text() | st.sampled_from(
    [
        "/var/spool/slurmd/job7/slurm_script: line 9: /opt/x/bin/python: No such file or directory",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of the step tasks have been OOM Killed.",
        "Cannot reach the hub at http://hub:8081/hub/api: timed out. Trying again in 15 s.",
    ]
)


@pytest.mark.parametrize(
    ("words", "reason", "why"),
    [
        (
            f"sbatch: error: invalid partition specified: large\n{SBATCH}Invalid partition name specified",
            "invalid_partition",
            "The partition large does not exist.",
        ),
        (SBATCH + "Invalid partition name specified", "invalid_partition", "The partition does not exist."),
        (SBATCH + "User's group not permitted to use this partition", "invalid_partition", "not open to you"),
        (SBATCH + "No partition specified or system default partition", "invalid_partition", "no default"),
        (SBATCH + "Invalid account or account/partition combination specified", "invalid_account", "not yours"),
        (SBATCH + "Invalid qos specification", "invalid_qos", "quality of service"),
        (SBATCH + "Access denied to requested reservation", "invalid_reservation", "not open to you"),
        (SBATCH + "Requested reservation is invalid", "invalid_reservation", "does not exist"),
        (SBATCH + "Requested reservation not usable now", "invalid_reservation", "not begun"),
        (
            SBATCH + "Requested time limit is invalid (missing or exceeds some limit)",
            "time_limit",
            "limit of the partition",
        ),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", "limit", "You have as many jobs as the quality"),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", "limit", "as many jobs as your account"),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", "limit", "Your project has as many jobs"),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", "time_limit", "more time than the quality"),
        (f"sbatch: error: AssocMaxWallDurationPerJobLimit\n{POLICY}", "time_limit", "more time than your account"),
        (f"sbatch: error: QOSMaxCpuPerJobLimit\n{POLICY}", "limit", "more cores than"),
        (f"sbatch: error: QOSMinGRES\n{POLICY}", "limit", "fewer GPUs than"),
        (POLICY, "limit", "A limit of your account"),
        (SBATCH + "Requested node configuration is not available", "no_such_node", "large enough"),
        (
            f"sbatch: error: Memory specification can not be satisfied\n{SBATCH}Requested node configuration is not "
            "available",
            "no_such_node",
            "much memory",
        ),
        (SBATCH + "Invalid generic resource (gres) specification", "no_such_node", "large enough"),
        (SBATCH + "Node count specification invalid", "no_such_node", "large enough"),
        (SBATCH + "More processors requested than permitted", "no_such_node", "large enough"),
        (SBATCH + "Requested nodes not in this partition", "no_such_node", "large enough"),
        (SBATCH + "Required partition not available (inactive or drain)", "partition_down", "takes no jobs"),
        (SBATCH + "Required node not available (down, drained or reserved)", "partition_down", "down or reserved"),
        (SBATCH + "Partition in DOWN state", "partition_down", "takes no jobs"),
        (SBATCH + "MaxJobCount limit reached", "cluster_full", "as many jobs as it can"),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            "cluster_full",
            "as many jobs as it can",
        ),
        (SBATCH + "System submissions disabled", "backend_down", "takes no jobs"),
        (SBATCH + "Access/permission denied", "denied", "may not do this"),
        ("sudo: unknown user ada", "no_user", "does not know your account ada"),
        ("sudo: a password is required", "site_error", "in your name"),
        (
            f"sbatch: error: Please name a project with --account\n{SBATCH}Unspecified error",
            "refused",
            "It says: Please name a project with --account.",
        ),
        (SBATCH + "Unspecified error", "refused", "It did not say why."),
    ],
)
def test_refusals(words: str, reason: str, why: str) -> None:
    failure = diagnose.refused_submission(words)
    assert (failure.reason, failure.evidence) == (reason, words) and why in failure.why and failure.remedy


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("PartitionTimeLimit", "time_limit"),
        ("PartitionNodeLimit", "limit"),
        ("BadConstraints", "no_such_node"),
        ("InvalidAccount", "invalid_account"),
        ("AccountNotAllowed", "invalid_account"),
        ("InvalidQOS", "invalid_qos"),
        ("QOSNotAllowed", "invalid_qos"),
        ("QOSMaxWallDurationPerJobLimit", "time_limit"),
        ("AssocMaxWallDurationPerJobLimit", "time_limit"),
        ("QOSMaxCpuPerJobLimit", "limit"),
        ("QOSMaxCpuPerNode", "limit"),
        ("QOSMaxNodePerJobLimit", "limit"),
        ("QOSMaxGRESPerJob", "limit"),
        ("AssocMaxCpuMinutesPerJobLimit", "limit"),
        ("QOSMaxMemoryPerJob", "limit"),
        ("QOSMinCpuNotSatisfied", "limit"),
        ("QOSMinGRES", "limit"),
        ("ReservationDeleted", "invalid_reservation"),
        ("DependencyNeverSatisfied", "dependency"),
    ],
)
def test_what_never_comes_ends_the_wait(reason: str, label: str) -> None:
    failure = diagnose.never_starts(reason)
    assert failure is not None and failure.reason == label and failure.remedy and reason in failure.evidence
    with pytest.raises(StartFailed, match="can never start"):
        diagnose.queue_words(reason, "N/A")
    assert reason_words(reason)[0].islower() and reason not in reason_words(reason)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "has not looked at it yet"),
        ("None", "has not looked at it yet"),
        ("Priority", "other jobs are ahead"),
        ("Resources", "nodes to become free"),
        ("JobHeldUser", "scontrol release"),
        ("JobHeldAdmin", "ask its support"),
        ("QOSMaxJobsPerUserLimit", "you have as many running jobs as the quality of service allows one user; stop one"),
        ("AssocMaxJobsLimit", "you have as many running jobs as your account allows"),
        ("QOSMaxGRESPerUser", "you have as many GPUs as the quality of service allows one user"),
        ("QOSMaxMemoryPerUser", "as much memory as"),
        ("MaxGRESPerAccount", "your project has as many GPUs as"),
        ("AssocGrpGRES", "your project has as many GPUs as allowed"),
        ("QOSGrpNodeLimit", "all jobs of the quality of service together have as many nodes as allowed"),
        ("AssocGrpCPUMinutesLimit", "the time that your project may use is used up"),
        ("QOSGrpGRESRunMinutes", "the time that the quality of service may use is used up"),
        ("AssocGrpBilling", "as much of the budget as allowed"),
        ("ReqNodeNotAvail, UnavailableNodes:nid[000001-000004]", "(nid[000001-000004])"),
        ("ReqNodeNotAvail, Reserved for maintenance", "a maintenance begins"),
        ("(ReqNodeNotAvail,_May_be_reserved_for_other_job)", "down or reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "the nodes that could take it are down, drained or kept for more urgent jobs",
        ),
        ("BeginTime", "begin time"),
        ("PartitionDown", "partition is down"),
        ("SomethingNewIn26", "Slurm says SomethingNewIn26"),
    ],
)
def test_what_may_come_is_waited_for_in_plain_words(reason: str, words: str) -> None:
    assert diagnose.never_starts(reason) is None
    message, percent, _ = diagnose.queue_words(reason, "N/A")
    assert words in message and percent == 20


def test_a_limit_of_one_partition_says_nothing_of_a_job_that_may_use_several() -> None:
    assert diagnose.never_starts("PartitionTimeLimit", "normal") is not None
    assert diagnose.never_starts("PartitionTimeLimit", "normal,debug") is None
    assert diagnose.never_starts("QOSMaxWallDurationPerJobLimit", "normal,debug") is not None


def test_a_queued_job_is_told_with_its_place_and_estimate() -> None:
    assert diagnose.queue_words("Priority", "2026-11-22T10:00:00", 3)[0] == (
        "In the queue: other jobs are ahead of it; 3 jobs before it; estimated start 2026-11-22 10:00:00"
    )


@pytest.mark.parametrize(
    ("state", "words", "exit_code", "log", "reason", "why"),
    [
        ("TIMEOUT", "", 0, "", "timeout", "The job reached its time limit of 02:00:00."),
        ("CANCELLED", "", 0, "*** JOB 7 ON n1 CANCELLED AT x DUE TO TIME LIMIT ***", "timeout", "time limit"),
        ("CANCELLED", "", 0, "*** JOB 7 ON n1 CANCELLED AT x ***", "cancelled", "outside JupyterHub"),
        ("NODE_FAIL", "", 0, "", "node_fail", "The node nid000007 failed."),
        ("OUT_OF_MEMORY", "OutOfMemory", 253, "", "memory", "more memory than it has"),
        (
            "FAILED",
            "JobLaunchFailure",
            137,
            "slurmstepd-n1: error: StepId=15.batch exceeded memory limit (209805312 > 20971520), being killed",
            "memory",
            "more memory than it has",
        ),
        ("FAILED", "JobLaunchFailure", 137, "", "killed", "killed (signal 9)"),
        ("FAILED", "JobLaunchFailure", 181, "", "home", "the session's log /home/ada/session.log:"),
        ("FAILED", "RaisedSignal:53(Real-time_signal_19)", None, "", "home", "the session's log"),
        ("FAILED", "BadConstraints", 1, "", "no_such_node", "large enough"),
        ("FAILED", "NonZeroExitCode", 126, "", "permission", "not executable"),
        ("FAILED", "NonZeroExitCode", 13, "", "permission", "not executable"),
        ("FAILED", "NonZeroExitCode", 127, "", "environment", "missing on the node"),
        ("FAILED", "NonZeroExitCode", 3, "", "exited", "Slurm says FAILED with exit code 3."),
        ("COMPLETED", "None", 0, "bye", "exited", "ended by itself, without an error"),
        ("GONE", "", None, "", "exited", "knows the job no more"),
    ],
)
def test_ends(state: str, words: str, exit_code: int | None, log: str, reason: str, why: str) -> None:
    where = {"host": "nid000007", "runtime": "02:00:00", "log_path": "/home/ada/session.log"}
    failure = diagnose.ended_job(state, words, exit_code, log, **where)
    assert failure.reason == reason and why in failure.why and failure.remedy
    assert failure.evidence.startswith(f"Slurm: {state}") and log in failure.evidence


@pytest.mark.parametrize(
    ("log", "reason", "why"),
    [
        ("/opt/env/bin/python: No module named jupyterhub", "package_missing", "lacks JupyterHub"),
        ("ModuleNotFoundError: No module named 'jupyterlab'", "package_missing", "lacks JupyterLab (jupyterlab)"),
        ("ModuleNotFoundError: No module named 'torch'", "package_missing", "the Python package torch"),
        ("slurm_script: line 9: /opt/x/python: No such file or directory", "environment", "node: /opt/x/python."),
        ("slurm_script: line 9: module: command not found", "environment", "on the node: module."),
        ("slurm_script: line 9: /r/python: Permission denied", "permission", "on the node: /r/python."),
        ("slurm_script: 4: /r/python: Permission denied", "permission", "on the node: /r/python."),
        ("PermissionError: [Errno 13] Permission denied: '/home/ada/.local'", "permission", "/home/ada/.local is not"),
        ("bash: /x/python: cannot execute binary file: Exec format error", "environment", "kind of processor"),
        ("python: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)", "environment", "needs GLIBC_2.38"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk_full", "disk is full"),
        ("OSError: [Errno 30] Read-only file system: '/home/ada'", "home", "read-only on the node: /home/ada."),
        ("[C] ERROR: port 4711 is already in use", "port_taken", "the session's port 4711"),
        ("OSError: [Errno 98] Address already in use", "port_taken", "the session's port on the node"),
        (
            "slurmstepd: error: couldn't chdir to `/home/ada': No such file or directory: going to /tmp instead",
            "home",
            "Your directory /home/ada is not on the node.",
        ),
        (
            "couldn't chdir to `/home/ada': No such file or directory: going to /tmp instead\n"
            "slurm_script: line 9: python3.12: command not found",
            "environment",
            "python3.12",
        ),
        ("The hub at http://h:1/x was out of reach for 900 s: giving", "hub_unreachable", "the hub at http://h:1/x."),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of the step tasks have been OOM Killed.",
            "memory",
            "memory",
        ),
        ("Traceback\n  x\nImportError: libcudart.so.12: no version", "exited", "ImportError: libcudart.so.12"),
    ],
)
def test_clues(log: str, reason: str, why: str) -> None:
    found = find_clue(f"Session on nid1, port 4711\n{log}\nsome more")
    assert found is not None and found.reason == reason and why in found.why
    assert "{}" not in found.why and clue(log) is not None


def test_a_good_log_has_no_clue() -> None:
    assert find_clue("Session on nid000001, port 4711\n[I 2026-11-22 ServerApp] Jupyter Server 2.17 is running") is None


def test_a_hub_out_of_reach_is_told_while_it_is_the_last_thing_that_the_node_says() -> None:
    line = "Cannot reach the hub at http://hub:8081/x: <urlopen error [Errno 111] Connection refused>. Trying again in 3 s."
    told = hub_unreachable(f"Session on n, port 1\n{line}\n")
    assert told is not None and "http://hub:8081/x" in told[0] and "refused" in told[1]
    assert hub_unreachable(f"{line}\n[I] Jupyter Server is running") is None and hub_unreachable("") is None


@given(st.text(), st.text())
def test_any_refusal_has_a_cause_and_a_remedy(words: str, reason: str) -> None:
    complete(diagnose.refused_submission(words))
    complete(diagnose.silent_controller(words))
    complete(diagnose.queue_timeout(10, reason, words))
    assert reason_words(reason)


@given(st.text(), st.text(), st.none() | st.integers(0, 300), LOGS, st.text())
def test_any_end_has_a_cause_and_a_remedy(state: str, words: str, code: int | None, log: str, where: str) -> None:
    complete(diagnose.ended_job(state, words, code, log, host=where, runtime=where, log_path=where))
    complete(diagnose.no_callback(where, 300, log))
    complete(process.ended_process(code or 0, log))
    complete(process.not_reachable(where, 120, log))


@given(st.sampled_from(["QOS", "Assoc", ""]), st.sampled_from(["Grp", "Max", "Min"]), st.text())
def test_any_limit_is_a_sentence(owner: str, kind: str, rest: str) -> None:
    limit = limit_of(owner + kind + rest)
    assert limit is None or (limit.sentence.endswith(".") and limit.remedy)


@given(st.text(), st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=16), st.text())
def test_the_sessions_token_is_in_no_text(before: str, token: str, after: str) -> None:
    assert token not in without_secrets(before + token + after, [token, ""])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("JUPYTERHUB_API_TOKEN=c0ffee12", "JUPYTERHUB_API_TOKEN="),
        ('export HF_TOKEN="c0ffee12 x"', "export HF_TOKEN="),
        ("Authorization: token c0ffee12", "Authorization: "),
        ("{'api_key': 'c0ffee12'}", "{'api_key': "),
        ("http://hub/lab?token=c0ffee12&x=1", "&x=1"),
        ("git clone https://ada:c0ffee12@git.site/x", "@git.site/x"),
        ("hf_c0ffee12c0ffee12", ""),
        ("password: c0ffee12", "password: "),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, kept: str) -> None:
    masked = without_secrets(text)
    assert "c0ffee12" not in masked and MASK in masked and kept in masked


def test_ordinary_lines_are_left_alone() -> None:
    for line in (
        "ModuleNotFoundError: No module named 'tokenizers'",
        "Session on nid000001, port 4711",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    ):
        assert without_secrets(line) == line


def complete(failure: StartFailed) -> None:
    assert failure.what.strip() and failure.why.strip() and failure.remedy.strip() and failure.reason
