"""The hub of one site: reads a site file and sets what JupyterHub needs, each choice with its reason.

OBERALP_SITE    site file          (sites/local.yaml)
OBERALP_PORT    public port        (the site file's, else 8000)
OBERALP_STATE   state directory    (./var)
"""

import logging
import os
import secrets
import sys
from pathlib import Path

from hybridspawner import SiteError, configure, database, load_site
from hybridspawner import proxy as node_proxy

c = get_config()  # noqa: F821  JupyterHub provides it

ROOT = Path(__file__).parent.resolve()
STATE = Path(os.environ.get("OBERALP_STATE", ROOT / "var")).resolve()
try:
    site = load_site(os.environ.get("OBERALP_SITE", ROOT / "sites" / "local.yaml"))
except SiteError as error:
    sys.exit(str(error))
STATE.mkdir(mode=0o700, parents=True, exist_ok=True)

# The spawner, its pages and its handlers.
configure(c, site, STATE)

# --- addresses -------------------------------------------------------------------------------------------------------
port = int(os.environ.get("OBERALP_PORT") or site.hub.port)
c.JupyterHub.bind_url = f"http://{site.hub.bind_ip}:{port}"
c.JupyterHub.hub_ip = site.hub.hub_ip
c.JupyterHub.hub_port = (
    site.hub.hub_port if port == site.hub.port else port + 1
)  # two hubs of one machine do not collide
if site.hub.connect_url:
    c.JupyterHub.hub_connect_url = site.hub.connect_url

# --- the proxy: JupyterHub's default, by the Node that `make` found or brought ---------------------------------------
c.ConfigurableHTTPProxy.command = node_proxy.command(ROOT)
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port + 2}"
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")

# --- state: all of it below one directory ----------------------------------------------------------------------------
c.JupyterHub.db_url = f"sqlite:///{STATE / 'jupyterhub.sqlite'}"
database.write_ahead()  # a class that starts at once does not wait for the disk; the directory must not be on NFS
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
# A hub that stops leaves sessions running and finds them again: a restart must not cost anybody an allocation. On a
# laptop there is none to lose, and Ctrl-C should leave nothing behind.
c.JupyterHub.cleanup_servers = all(target.kind == "local" for target in site.targets)
# The hub answers at once after a restart and goes on looking at old sessions meanwhile, so that nodes can call back.
c.JupyterHub.init_spawners_timeout = 1

# --- who may do what -------------------------------------------------------------------------------------------------
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = (
    0  # a session in a Slurm queue must not lock others out; targets have limits of their own
)
c.JupyterHub.authenticate_prometheus = True
c.Authenticator.admin_users = set(site.hub.admins)


def kept_password(name: str, length: int) -> str:
    """A random password, made at the first start and kept in the state directory for the hub's account only."""
    path = STATE / name
    if not path.exists():
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_urlsafe(length))
    return path.read_text().strip()


if site.hub.login == "shared-password":
    # Everybody logs in under a name of their choice with one password: right for a laptop or a workshop.
    c.JupyterHub.authenticator_class = "shared-password"
    c.Authenticator.allow_all = True
    c.SharedPasswordAuthenticator.user_password = kept_password("password", 9)
    c.SharedPasswordAuthenticator.admin_password = kept_password("admin_password", 32)
elif site.hub.login == "pam":
    c.JupyterHub.authenticator_class = "pam"
    c.Authenticator.allow_all = True

# --- idle sessions ---------------------------------------------------------------------------------------------------
if site.policy.idle_timeout:
    culler = [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={site.policy.idle_timeout}"]
    c.JupyterHub.services = [{"name": "idle-culler", "command": culler}]
    c.JupyterHub.load_roles = [
        {
            "name": "idle-culler",
            "services": ["idle-culler"],
            "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        }
    ]

# --- the log, for people ---------------------------------------------------------------------------------------------
c.Application.log_format = "%(asctime)s  %(levelname)-7s  %(message)s"
c.Application.log_datefmt = "%H:%M:%S"
c.JupyterHub.log_level = os.environ.get("OBERALP_LOG", "INFO")
c.ConfigurableHTTPProxy.log_level = "warn"
logging.getLogger("alembic").setLevel(logging.WARNING)

print(f"{site.title}: http://{site.hub.bind_ip}:{port}", flush=True)
if site.hub.login == "shared-password":
    print(f"  Log in under any name with the password   {kept_password('password', 9)}", flush=True)
    print(f"  (administrators: the one in {STATE / 'admin_password'})", flush=True)
