"""One contract, every transport, one real Slurm: what HybridSpawner may expect of a SlurmClient (client.py).

`local` submits as the hub itself; `sudo` as another user, from an account without rights, by one line of sudoers; `ssh`
on a login node, as another user; `rest` with tokens for each user; `firecrest` through FirecREST's own server, where
its source is at hand (tests/clusters/firecrest.py).
"""

import asyncio
import base64
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from hybridspawner.targets.slurm.cli import LAUNCHER, CommandLine
from hybridspawner.targets.slurm.client import (
    SlurmClient,
    SlurmUnavailable,
    SlurmUnreachable,
    Submission,
    SubmitRefused,
)
from hybridspawner.targets.slurm.firecrest import Firecrest, client_credentials
from hybridspawner.targets.slurm.rest import Rest
from hybridspawner.targets.slurm.runner import Finished, LocalRunner
from hybridspawner.targets.slurm.ssh import SshRunner
from hybridspawner.targets.slurm.tokens import printed_by, signed_by
from tests.clusters.firecrest import SYSTEM, FirecrestServer
from tests.clusters.oidc import OidcProvider
from tests.clusters.requirement import unavailable
from tests.clusters.slurm import ClusterError, SlurmCluster, SlurmSpec
from tests.clusters.sshd import LoginNode

pytestmark = pytest.mark.slurm

HUB, USER, GROUP = "oberalp-hub", "oberalp-ada", "oberalp-users"
SUDOERS = Path("/etc/sudoers.d/oberalp-test-clients")
ODD = {
    "PLAIN": "value",
    "QUOTES": """it's "quoted" `and` $HOME \\ !""",
    "LINES": "first\nsecond\n\tthird\n",
    "PAIRS": "a=b,c=d;e&f|g",
    "UNICODE": "Zürich 🏔 日本",
    "EMPTY": "",
    "SPACES": "  around  ",
}


@dataclass
class Site:
    """A real Slurm with accounting and REST, two accounts, a login node and a directory that everybody can enter."""

    cluster: SlurmCluster
    node: LoginNode
    directory: Path
    launcher: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.cluster.layout.conf)}


class AsHubAccount(LocalRunner):
    """What a hub that does not run as root would do: the same, from its own account."""

    async def run(self, argv: list[str], stdin: bytes, environment: dict[str, str], timeout: float) -> Finished:
        return await super().run(["runuser", "-u", HUB, "--", *argv], stdin, environment, timeout)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if os.geteuid() or not all(shutil.which(program) for program in ("sudo", "visudo", "sshd", "slurmrestd")):
        unavailable(
            "slurm", "root, sudo, sshd or slurmrestd is missing", "apt-get install sudo openssh-server slurmrestd"
        )
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="oberalp-clients-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        cluster = _cluster(stack, directory)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(cluster.layout.conf))
        _accounts(stack)
        launcher = Path(shutil.copy(LAUNCHER, directory / "launcher.py"))
        launcher.chmod(0o644)
        line = f"{HUB} ALL=(%{GROUP}) NOPASSWD: /usr/bin/python3 -I {launcher}\n"
        subprocess.run(["visudo", "-cf", "-"], input=line, text=True, check=True, capture_output=True)
        stack.callback(SUDOERS.unlink, missing_ok=True)
        SUDOERS.write_text(line)
        SUDOERS.chmod(0o440)
        keys = directory / "ssh"
        keys.mkdir(mode=0o700)
        for user in (USER, "root"):
            home = directory / user
            home.mkdir()
            os.chown(home, pwd.getpwnam(user).pw_uid, -1)
        node = stack.enter_context(LoginNode(keys, {"SLURM_CONF": str(cluster.layout.conf)}))
        yield Site(cluster, node, directory, launcher)


def _cluster(stack: ExitStack, directory: Path) -> SlurmCluster:
    """The environment's cluster if it can do all that is needed here, else one of our own."""
    if os.environ.get("OBERALP_SLURM") == "1" and (cluster := SlurmCluster()).running and cluster.spec.rest:
        return cluster
    try:
        return stack.enter_context(SlurmCluster(SlurmSpec(nodes=2, rest=True), directory / "slurm"))
    except ClusterError as error:
        unavailable("slurm", str(error), "apt-get install slurmdbd slurmrestd slurm-wlm-jwt-plugin mariadb-server")


def _accounts(stack: ExitStack) -> None:
    subprocess.run(["groupadd", "-f", GROUP], check=True)
    for name, groups in ((HUB, []), (USER, ["-G", GROUP])):
        subprocess.run(["useradd", "-m", "-p", "*", *groups, name], check=False, capture_output=True)
        stack.callback(subprocess.run, ["userdel", "-r", name], check=False, capture_output=True)
    stack.callback(subprocess.run, ["groupdel", GROUP], check=False, capture_output=True)


@dataclass
class Connection:
    """A client, the user for whom it submits here, and what it told of its calls."""

    client: SlurmClient
    user: str
    home: Path
    transport: str
    calls: list[tuple[str, float, bool]]

    def job(self, script: str, mark: str, environment: dict[str, str] | None = None, options: str = "") -> Submission:
        head = f"#!/bin/bash\n#SBATCH --job-name=test\n#SBATCH --output={self.home}/%j.log\n#SBATCH --export=ALL\n"
        full = {"PATH": "/usr/local/bin:/usr/bin:/bin", **(environment or {})}
        return Submission(f"{head}#SBATCH --time=5\n{options}\n{script}\n", full, self.user, mark, str(self.home))


def firecrest_client(site: Site, stack: ExitStack, on_call: Any, oidc: OidcProvider) -> Firecrest:
    directory = Path(tempfile.mkdtemp(dir=site.directory))
    server = stack.enter_context(FirecrestServer(directory, oidc, site.node))
    tokens = client_credentials(oidc.token_url, oidc.client_id, lambda: oidc.client_secret)
    return Firecrest(server.url, SYSTEM, tokens, {"gh200": 4}, on_call=on_call)


@pytest.fixture(scope="module", params=["local", "sudo", "ssh", "rest", "firecrest"])
async def there(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    calls: list[tuple[str, float, bool]] = []

    def on_call(verb: str, seconds: float, answered: bool) -> None:
        calls.append((verb, seconds, answered))

    kind = request.param
    user = {"local": "root", "firecrest": "root"}.get(kind, USER)
    client: SlurmClient
    with ExitStack() as stack:
        if kind == "local":
            client = CommandLine("hub", on_call=on_call)
        elif kind == "sudo":
            client = CommandLine("user", runner=AsHubAccount(), launcher=str(site.launcher), on_call=on_call)
        elif kind == "ssh":
            node = site.node
            runner = SshRunner(node.host, node.port, "root", str(node.key_file), str(node.known_hosts))
            there = str(site.launcher)
            client = CommandLine("user", runner=runner, launcher=there, variables=site.variables, on_call=on_call)
        elif kind == "rest":
            fetch = signed_by(str(site.cluster.layout.jwt_key))
            client = Rest(site.cluster.env["SLURM_REST_URL"], fetch, "root", "user", on_call=on_call)
        else:
            oidc = stack.enter_context(OidcProvider("root"))
            client = firecrest_client(site, stack, on_call, oidc)
        yield Connection(client, user, site.directory / user, kind, calls)
        await client.close()


@pytest.fixture
def mark(site: Site) -> Iterator[str]:
    """A mark of its own for each test, whose jobs are ended with it."""
    prefix = f"jupyterhub-{secrets.token_hex(4)}-"
    yield prefix + secrets.token_hex(8)
    for field in ("comment", "name"):
        lines = site.cluster.run("squeue", "--noheader", f"--Format=JobID:20,{field}:200").stdout.splitlines()
        ours = [line.split()[0] for line in lines if prefix in line]
        site.cluster.run("scancel", *ours, check=False) if ours else None


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.2)
    return found


async def test_a_job_s_life(there: Connection, mark: str) -> None:
    client = there.client
    job_id = await client.submit(there.job("sleep 120", mark))
    assert job_id.isdigit()

    async def running() -> Any:
        reading = (await client.queue()).get(job_id)
        return reading if reading and reading.state == "RUNNING" else None

    reading = await until(running)
    assert reading.host.startswith("nid") and reading.partition == "normal"
    assert reading.user == there.user and reading.priority > 0
    found = await client.marked(mark[:20])
    assert list(found) == [mark] and found[mark].job_id == job_id and not found[mark].ended
    assert await client.marked("nobody's") == {}

    await client.cancel(job_id, there.user)

    async def ended() -> Any:
        record = (await client.finished([job_id])).get(job_id)
        return record if record and record.ended else None

    assert (await until(ended)).state == "CANCELLED"
    await client.cancel(job_id, there.user)  # a second time is no error


async def test_an_exit_code_is_kept(there: Connection, mark: str) -> None:
    job_id = await there.client.submit(there.job("exit 7", mark))

    async def ended() -> Any:
        record = (await there.client.finished([job_id])).get(job_id)
        return record if record and record.ended else None

    record = await until(ended)
    assert (record.state, record.exit_code) == ("FAILED", 7)


async def test_jobs_that_nobody_knows(there: Connection) -> None:
    assert await there.client.finished(["4000000"]) == {}
    await there.client.cancel("4000000", there.user)
    assert "4000000" not in await there.client.queue()


async def test_the_environment_arrives_exactly(there: Connection, mark: str, site: Site) -> None:
    secret = secrets.token_hex(16)
    environment = {**ODD, "JUPYTERHUB_API_TOKEN": secret, "SBATCH_ACCOUNT": "x"}
    out = there.home / f"{mark}.env"
    job_id = await there.client.submit(
        there.job(f"env -0 > {out}.part && mv {out}.part {out}; sleep 60", mark, environment)
    )

    async def written() -> bool:
        return out.exists()

    await until(written)
    seen = dict(pair.split("=", 1) for pair in out.read_bytes().decode().split("\0") if pair)
    assert {name: seen.get(name) for name in ODD} == ODD
    assert seen["JUPYTERHUB_API_TOKEN"] == secret
    record = site.cluster.run("scontrol", "show", "job", job_id).stdout
    script = site.cluster.run("scontrol", "write", "batch_script", job_id, "-").stdout
    coded = base64.b64encode(secret.encode()).decode().rstrip("=")
    assert secret not in record + script and coded not in record + script


async def test_a_log_is_read_from_its_end(there: Connection, mark: str) -> None:
    job_id = await there.client.submit(there.job("for i in $(seq 100); do echo line $i; done; sleep 60", mark))
    path = str(there.home / f"{job_id}.log")

    async def last() -> bool:
        return (await there.client.tail(path, there.user, 2)).splitlines() == ["line 99", "line 100"]

    await until(last)
    assert await there.client.tail(str(there.home / "none"), there.user, 2) == ""


async def test_a_refused_job(there: Connection, mark: str) -> None:
    with pytest.raises(SubmitRefused, match="(?i)invalid partition"):
        await there.client.submit(there.job("true", mark, options="#SBATCH --partition=nowhere"))
    assert await there.client.marked(mark) == {}


async def test_everything_that_the_template_asks_for(there: Connection, mark: str, site: Site) -> None:
    options = "\n".join(
        f"#SBATCH --{option}"
        for option in (
            "partition=debug",
            "nodes=1",
            "time=00:07:00",
            "cpus-per-task=3",
            "mem=2000M",
            "gres=gpu:gh200:2",
        )
    )
    job_id = await there.client.submit(there.job("sleep 60", mark, options=options))
    record = site.cluster.run("scontrol", "--oneliner", "show", "job", job_id).stdout
    seen = dict(word.partition("=")[::2] for word in record.split())
    assert (seen["Partition"], seen["TimeLimit"]) == ("debug", "00:07:00") and seen["NumNodes"] in ("1", "1-1")
    assert "cpu=3,mem=2000M" in seen["TRES"] and "gres/gpu=2" in seen["TRES"]
    assert seen["WorkDir"] == str(there.home) and seen["StdOut"] == str(there.home / f"{job_id}.log")
    assert seen["UserId"].startswith(f"{there.user}(")


async def test_nodes_and_what_holds_them(there: Connection, site: Site) -> None:
    cluster, name = site.cluster, f"test-{secrets.token_hex(4)}"
    cluster.drain("nid000001")
    cluster.run(
        *("scontrol", "create", "reservation", f"reservationname={name}", "starttime=now", "duration=10"),
        *(f"users={USER}", "nodes=nid000002", "flags=ignore_jobs"),
    )
    try:
        nodes = {node.name: node for node in await there.client.nodes()}
        if there.transport != "firecrest":  # it tells no reservation's users
            assert name in ((await there.client.rights())[USER].reservations or ())
    finally:
        cluster.run("scontrol", "delete", f"reservation={name}")
        cluster.resume("nid000001")
    drained, held = nodes["nid000001"], nodes["nid000002"]
    assert not drained.usable and drained.state == "drained"
    assert not held.usable and held.state == "reserved" and held.reservations == {name}
    assert held.gpus == {"gh200": 4} and held.cpus == 288 and held.memory_gb == pytest.approx(912.3, abs=0.1)
    assert held.partitions == {"normal", "debug"}

    async def back() -> bool:
        return all(node.usable for node in await there.client.nodes())

    await until(back)


async def test_rights_follow_accounting(there: Connection, site: Site) -> None:
    if there.transport == "firecrest":
        assert await there.client.rights() == {}  # it does not tell, so nothing is ruled out
        return
    cluster = site.cluster
    cluster.run("sacctmgr", "-i", "add", "account", "physics")
    cluster.run("sacctmgr", "-i", "add", "user", USER, "account=physics")
    cluster.run("scontrol", "update", "partitionname=debug", "allowaccounts=chemistry")
    try:
        rights = (await there.client.rights())[USER]
    finally:
        cluster.run("scontrol", "update", "partitionname=debug", "allowaccounts=all")
        cluster.run("sacctmgr", "-i", "delete", "user", USER, check=False)
        cluster.run("sacctmgr", "-i", "delete", "account", "physics", check=False)
    assert rights.accounts == ("physics",) and rights.qos == ("normal",)
    assert rights.partitions == ("normal",) and rights.reservations == ()


async def test_estimates(there: Connection, mark: str) -> None:
    start = await there.client.estimate(there.job("true", mark))
    if there.transport in ("rest", "firecrest"):
        assert start is None
        return
    assert start is not None and abs(start.timestamp() - time.time()) < 600
    with pytest.raises(SubmitRefused, match="(?i)partition"):
        await there.client.estimate(there.job("true", mark, options="#SBATCH --partition=nowhere"))
    assert await there.client.marked(mark) == {}  # nothing was submitted


async def test_a_silent_controller_tells_nothing(there: Connection, mark: str, site: Site) -> None:
    client = there.client
    job_id = await client.submit(there.job("sleep 120", mark))
    there.calls.clear()
    site.cluster.stop_controller()
    try:
        questions: dict[str, Awaitable[Any]] = {
            "queue": client.queue(),
            "marked": client.marked(mark),
            "finished": client.finished([job_id]),
            "nodes": client.nodes(),
            "cancel": client.cancel(job_id, there.user),
            "submit": client.submit(there.job("true", mark)),
        }
        if there.transport != "firecrest":
            questions["rights"] = client.rights()
        if there.transport in ("local", "sudo", "ssh"):
            questions["estimate"] = client.estimate(there.job("true", mark))
        answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    finally:
        site.cluster.start_controller()
    # the commands know that nobody took the question; an HTTP server may have passed it on
    expected = SlurmUnreachable if there.transport in ("local", "sudo", "ssh") else SlurmUnavailable
    assert {n: type(a) for n, a in zip(questions, answers, strict=True)} == dict.fromkeys(questions, expected)
    assert {verb for verb, _, answered in there.calls if not answered} >= {"queue", "submit", "cancel"}
    assert not (await client.queue())[job_id].ended
    assert list(await client.marked(mark)) == [mark]
    assert there.calls[-1][2]


# --- what is particular to one transport -------------------------------------------------------------------------------


SCAN = """
import os, sys
secret, hits = sys.stdin.buffer.read(), []
for pid in filter(str.isdigit, os.listdir('/proc')):
    for name in ('cmdline', 'environ'):
        try:
            if secret in open(f'/proc/{pid}/{name}', 'rb').read(): hits.append(f'{pid}/{name}')
        except OSError: pass
print(' '.join(hits))
"""


async def test_nobody_sees_a_secret_while_it_is_submitted(site: Site, mark: str) -> None:
    """A slow sbatch, and an account without rights that looks at every process meanwhile."""
    slow = site.directory / "slow"
    slow.mkdir(exist_ok=True)
    begun = site.directory / USER / "begun"
    (slow / "sbatch").write_text(f'#!/bin/sh\ntouch {begun}\nsleep 3\nexec {shutil.which("sbatch")} "$@"\n')
    (slow / "sbatch").chmod(0o755)
    secret = secrets.token_hex(16)
    client = CommandLine("user", str(slow), runner=AsHubAccount(), launcher=str(site.launcher))
    here = Connection(client, USER, site.directory / USER, "sudo", [])
    submitting = asyncio.create_task(client.submit(here.job("sleep 5", mark, {"TOKEN": secret})))

    async def has_begun() -> bool:
        return begun.exists()

    await until(has_begun)
    argv = ["runuser", "-u", "nobody", "--", "/usr/bin/python3", "-c", SCAN]
    scan = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    hits, _ = await scan.communicate(secret.encode())
    assert not submitting.done() and hits.decode().strip() == ""
    assert (await submitting).isdigit()


async def test_sudo_allows_the_launcher_for_the_group_and_nothing_else(site: Site) -> None:
    runner, allowed = AsHubAccount(), ["/usr/bin/python3", "-I", str(site.launcher)]
    request = json.dumps({"argv": ["squeue", "--noheader"], "environment": site.variables}).encode()
    environment = {"PATH": os.environ["PATH"]}
    done = await runner.run(["sudo", "-n", "-u", USER, "--", *allowed], request, environment, 20)
    assert done.status == 0, done.err
    for argv in (["-u", "root", "--", *allowed], ["-u", USER, "--", "/bin/true"], ["-u", USER, "--", *allowed[:2]]):
        assert (await runner.run(["sudo", "-n", *argv], request, environment, 20)).status != 0


async def test_a_lost_connection_is_silence_and_is_made_again(site: Site) -> None:
    node = site.node
    runner = SshRunner(node.host, node.port, "root", str(node.key_file), str(node.known_hosts))
    client = CommandLine("hub", runner=runner, launcher=str(site.launcher), variables=site.variables)
    await client.queue()
    node.stop()
    try:
        with pytest.raises(SlurmUnavailable):
            await client.queue()
    finally:
        node.start()
    await client.queue()
    await client.close()


async def test_a_login_node_with_another_key_is_not_talked_to(site: Site, tmp_path: Path) -> None:
    node, wrong = site.node, tmp_path / "known_hosts"
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    wrong.write_text(f"[{node.host}]:{node.port} {other}")
    for known_hosts in (wrong, tmp_path / "none"):
        runner = SshRunner(node.host, node.port, "root", str(node.key_file), str(known_hosts))
        with pytest.raises(SlurmUnavailable, match=r"(?i)host key|is missing"):
            await CommandLine("hub", runner=runner, launcher=str(site.launcher)).queue()


async def test_tokens_for_the_rest_api(site: Site, tmp_path: Path) -> None:
    url = site.cluster.env["SLURM_REST_URL"]
    scontrol = shutil.which("scontrol") or "scontrol"
    client = Rest(url, printed_by((scontrol, "token", "username={username}", "lifespan=60")), "root")
    await client.queue()
    await client.close()
    (tmp_path / "key").write_bytes(b"x" * 32)
    for fetch in (signed_by(str(tmp_path / "key")), signed_by(str(tmp_path / "none")), printed_by(("false",))):
        client = Rest(url, fetch, "root")
        with pytest.raises(SlurmUnavailable):
            await client.queue()
        await client.close()
    client = Rest("http://127.0.0.1:9", signed_by(str(site.cluster.layout.jwt_key)), "root")
    with pytest.raises(SlurmUnavailable, match="cannot be reached"):
        await client.finished(["1"])
    await client.close()


async def test_tokens_for_firecrest_are_renewed(site: Site) -> None:
    with ExitStack() as stack:
        oidc = stack.enter_context(OidcProvider("root", life=62))
        client = firecrest_client(site, stack, lambda *call: None, oidc)
        await client.queue()
        issued = oidc.issued

        async def renewed() -> bool:
            await client.queue()
            return oidc.issued > issued

        await until(renewed)
        oidc.failing = True

        async def refused() -> bool:
            try:
                await client.queue()
            except SlurmUnavailable as error:
                return "503" in str(error)
            return False

        await until(refused)
        oidc.failing = False
        await client.queue()
        await client.close()
