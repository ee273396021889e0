"""What the images promise: an ordinary user, exactly the locked versions, a server that starts, no build left-overs.

They are run with podman, and the single-user image as a pod of a real cluster too, when one is there.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clusters.kubernetes import GPU, KubernetesCluster, pod_manifest
from tests.clusters.requirement import unavailable

pytestmark = pytest.mark.images
TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LOCKS = {"hub": ["hub.txt"], "singleuser": ["session.txt", "torch.txt"]}
LEFTOVERS = ("/src", "~root/.cache", "~root/.npm", "/var/cache/apt/pkgcache.bin")


def tag(name: str) -> str:
    """The image's name, as images/build gives it."""
    prefix = os.environ.get("OBERALP_IMAGE_PREFIX", "localhost/oberalp")
    return f"{prefix}/{name}:{os.environ.get('OBERALP_IMAGE_TAG', 'dev')}"


@pytest.fixture(params=["hub", "singleuser"])
def image(request: pytest.FixtureRequest) -> str:
    return existing(request.param)


def existing(name: str) -> str:
    """The image's tag; skips when podman or the image is missing."""
    if not shutil.which("podman"):
        unavailable("images", "podman is not installed", "apt-get install podman")
    if subprocess.run(["podman", "image", "exists", tag(name)]).returncode:
        unavailable("images", f"{tag(name)} is not built", f"images/build {name}")
    return tag(name)


def run(image: str, *command: str, stdin: str = "", options: tuple[str, ...] = ()) -> str:
    """Run a command in a container without network; its standard output. Fails with what it said."""
    # podman's own limits are higher than an unprivileged parent may grant.
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    done = subprocess.run(
        ["podman", "run", "--rm", "--interactive", "--network=none", *limits, *options, image, *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_an_image_runs_as_an_ordinary_user_whose_home_is_writable(image: str) -> None:
    assert run(image, "sh", "-c", 'id -u; id -g; touch "$HOME/probe" && echo "$HOME"').split()[:2] == ["1000", "1000"]


def test_nobody_but_root_can_change_the_installation(image: str) -> None:
    writable = run(image, "find", "/opt", "-xdev", "-writable", "-not", "-type", "l", "-not", "-path", "/proc/*")
    assert writable == ""


def test_installed_versions_are_those_of_the_lock(image: str) -> None:
    name = "hub" if "/hub:" in image else "singleuser"
    lock = "\n".join((TREE / "requirements" / file).read_text() for file in LOCKS[name])
    script = HERE / "inspect_lock.py"
    mount = f"{script}:/inspect_lock.py:ro"
    report = json.loads(run(image, "python", "/inspect_lock.py", stdin=lock, options=("--volume", mount)))
    assert report["differences"] == {}
    assert report["checked"] > 50


def test_nothing_of_the_build_is_left(image: str) -> None:
    assert run(image, "sh", "-c", f"ls -d {' '.join(LEFTOVERS)} 2>/dev/null || true") == ""
    environment = run(image, "env")
    assert "PIP_" not in environment and "CERT" not in environment


def test_the_session_has_its_packages() -> None:
    session = existing("singleuser")
    imports = "import ipytune, torch, transformers, peft, papermill, anywidget; print(torch.tensor([20.0]) + 1)"
    assert run(session, "python", "-c", imports) == "tensor([21.])\n"
    assert run(session, "jupyterhub-singleuser", "--version").startswith("6.1")
    run(session, "ipytune", "--help")
    assert run(session, "jupyter", "kernelspec", "list", "--json").count("python3")


def test_users_can_add_packages_but_not_replace_the_servers() -> None:
    script = "import site, sys; print(site.ENABLE_USER_SITE, *sys.path, sep='\\n')"
    shell = f'mkdir -p "$(python -m site --user-site)"; python -c "{script}"'
    enabled, *path = run(existing("singleuser"), "sh", "-c", shell).split("\n")
    users = [place for place, entry in enumerate(path) if ".local" in entry]
    ours = [place for place, entry in enumerate(path) if entry.startswith("/opt/session") and "site-packages" in entry]
    assert enabled == "True"
    assert users and ours and ours[0] < users[0]


def test_the_hub_answers_through_its_proxy(tmp_path: Path) -> None:
    hub = existing("hub")
    site = tmp_path / "site.yaml"
    site.write_text(
        "title: Image test\n"
        "targets: [{name: local, kind: local, title: Here}]\n"
        "environments: [{name: pytorch, title: PyTorch, targets: {local: {}}}]\n"
        "profiles: [{name: small, title: Small, resources: {cpus: 1, memory_gb: 1},"
        ' runtime: {default: "01:00:00", max: "02:00:00"}}]\n'
    )
    probe = (
        "import sys, time, urllib.request\n"
        "deadline = time.monotonic() + 120\n"
        "while True:\n"
        "    try:\n"
        "        print(urllib.request.urlopen('http://127.0.0.1:8000/hub/api/', timeout=5).read().decode()); break\n"
        "    except OSError as error:\n"
        "        if time.monotonic() > deadline: sys.exit(str(error))\n"
        "        time.sleep(0.5)\n"
    )
    script = 'jupyterhub --config /opt/hub/jupyterhub_config.py >log 2>&1 & python -c "$0" || { cat log >&2; exit 1; }'
    mount = f"{site}:/etc/oberalp/site.yaml:ro"
    tmp_path.chmod(0o755)
    site.chmod(0o644)
    answer = run(hub, "sh", "-c", script, probe, options=("--volume", mount))
    assert json.loads(answer)["version"].startswith("6.1")


@pytest.mark.kubernetes
def test_a_pod_of_the_session_image_gets_a_gpu_and_runs_as_uid_1000(kubernetes_cluster: KubernetesCluster) -> None:
    name = tag("singleuser")
    if not kubernetes_cluster.has_image(name):
        unavailable("images", f"the cluster has no {name}", "podman save it and load the archive into the cluster")
    command = 'id -u; jupyterhub-singleuser --version; python -c "import ipytune, torch; print(torch.__version__)"'
    manifest = pod_manifest(name, ["sh", "-ec", command], resources={"limits": {GPU: "1"}})
    with kubernetes_cluster.namespace() as namespace:
        code, log = kubernetes_cluster.run(manifest, namespace)
    assert code == 0, log
    uid, hub_version, torch_version = log.split()
    assert (uid, hub_version[:3]) == ("1000", "6.1")
    assert torch_version.split("+")[0] == (TREE / "requirements/torch.txt").read_text().strip().removeprefix("torch==")
