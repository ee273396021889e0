"""Slurm's commands over a table of jobs: for hubs with thousands of sessions, whose jobs cost nothing.

Run as `simulated_slurm.py COMMAND DATABASE ARGUMENTS...`. Knows what the spawners here ask for and no more: sbatch,
scancel, squeue with %-formats, scontrol show, sacct, sinfo with named fields. A job is RUNNING at once; `farm.py` plays
its server.
"""

import json
import os
import re
import sqlite3
import sys
import time

VISIBLE = 300  # seconds for which an ended job can be seen, Slurm's MinJobAge
HOST = "localhost"


def connect(path: str) -> sqlite3.Connection:
    """The table, made if need be."""
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=off")
    database.execute(
        "create table if not exists jobs"
        " (id integer primary key, name text, mark text, state text, changed real, environment text)"
    )
    database.execute("create table if not exists calls (command text)")
    return database


def option(argv: list[str], *names: str) -> str:
    """The value of the last of the options `names`; "" if none is given."""
    found = ""
    for i, word in enumerate(argv):
        for name in names:
            if word == name and i + 1 < len(argv):
                found = argv[i + 1]
            elif word.startswith(name + "=") and name.startswith("--"):
                found = word.partition("=")[2]
    return found


Row = tuple[int, str, str, str, float]


def rows(database: sqlite3.Connection, ids: str = "") -> list[Row]:
    where = f" and id in ({','.join(str(int(i)) for i in ids.split(','))})" if ids else ""
    query = "select id, name, mark, state, changed from jobs where (state = 'RUNNING' or changed > ?)" + where
    return database.execute(query, (time.time() - VISIBLE,)).fetchall()


def sbatch(database: sqlite3.Connection, argv: list[str]) -> int:
    script = sys.stdin.read()
    if "--test-only" in argv:
        print(f"sbatch: Job 1 to start at {time.strftime('%Y-%m-%dT%H:%M:%S')} using 1 processors", file=sys.stderr)
        return 0
    name = re.search(r"^#SBATCH --job-name=(\S+)", script, re.MULTILINE)
    wanted = ("JUPYTERHUB_API_TOKEN", "JUPYTERHUB_API_URL", "HYBRIDSPAWNER_CALLBACK")
    environment = json.dumps({key: os.environ[key] for key in wanted if key in os.environ})
    cursor = database.execute(
        "insert into jobs (name, mark, state, changed, environment) values (?, ?, 'RUNNING', ?, ?)",
        (name[1] if name else "job", option(argv, "--comment"), time.time(), environment),
    )
    print(cursor.lastrowid)
    return 0


def scancel(database: sqlite3.Connection, argv: list[str]) -> int:
    ids = [(time.time(), int(word)) for word in argv if word.isdigit()]
    database.executemany("update jobs set state = 'CANCELLED', changed = ? where id = ? and state = 'RUNNING'", ids)
    return 0


def squeue(database: sqlite3.Connection, argv: list[str]) -> int:
    form = option(argv, "--format", "-o")
    everything = option(argv, "--states", "-t") == "all"
    for number, name, mark, state, changed in rows(database, option(argv, "--jobs", "-j")):
        if everything or state == "RUNNING":
            start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(changed))
            values = {"i": number, "T": state, "B": HOST, "S": start, "Q": 1, "P": "normal", "u": "root"}
            values |= {"r": "None", "k": mark, "j": name, "N": HOST, "A": number}
            print(re.sub(r"%[.0-9]*([A-Za-z])", lambda m: str(values.get(m[1], "N/A")), form))  # noqa: B023
    return 0


def scontrol(database: sqlite3.Connection, argv: list[str]) -> int:
    words = [word for word in argv if not word.startswith("-")]
    if words[1:2] == ["job"]:
        found = rows(database, words[2])
        if not found:
            print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
            return 1
        ((number, name, mark, state, _),) = found
        code = "0:0" if state == "RUNNING" else "0:15"
        print(
            f"JobId={number} JobName={name} UserId=root(0) GroupId=root(0) Priority=1 JobState={state} Reason=None"
            f" ExitCode={code} StartTime=2026-01-01T00:00:00 Partition=normal BatchHost={HOST} Comment={mark}"
        )
    elif words[1:2] == ["partition"]:
        print(
            "PartitionName=normal AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES State=UP Nodes=localhost"
        )
    else:
        print("No reservations in the system")
    return 0


def sacct(database: sqlite3.Connection, argv: list[str]) -> int:
    columns = option(argv, "--format").split(",")
    for number, name, mark, state, _ in rows(database, option(argv, "--jobs", "-j")):
        values = {"JobIDRaw": number, "JobID": number, "State": state, "ExitCode": "0:0", "Reason": "None"}
        values |= {"JobName": name, "Comment": mark, "User": "root"}
        print("|".join(str(values.get(column, "")) for column in columns))
    return 0


def sinfo(database: sqlite3.Connection, argv: list[str]) -> int:
    values = {"NodeList": HOST, "StateLong": "mixed", "CPUsState": "0/100000/0/100000", "Memory": 100_000_000}
    values |= {"AllocMem": 0, "PartitionName": "normal", "Gres": "(null)", "GresUsed": "(null)"}
    fields = (field.partition(":")[::2] for field in option(argv, "--Format").split(","))
    print("".join(str(values.get(name, "N/A")).ljust(int(width or 20)) for name, width in fields))
    return 0


COMMANDS = {
    "sbatch": sbatch,
    "scancel": scancel,
    "squeue": squeue,
    "scontrol": scontrol,
    "sacct": sacct,
    "sinfo": sinfo,
}


def main() -> int:
    command, path, *argv = sys.argv[1:]
    database = connect(path)
    database.execute("insert into calls values (?)", (command,))
    if command not in COMMANDS:
        print("You are not running a supported accounting_storage plugin", file=sys.stderr)
        return 1
    return COMMANDS[command](database, argv)


if __name__ == "__main__":
    sys.exit(main())
