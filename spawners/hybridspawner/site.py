"""The site file: which targets, environments and profiles a site offers, and to whom.

One YAML file describes a site (sites/*.yaml); these models are its schema, and the only place where its fields are
defined. Everything is checked when the hub starts: an unknown field, a profile that names a target which does not
exist, or a default above its limit ends the start with a message naming the place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .duration import parse_duration
from .endpoints import SiteEndpoint
from .transport import LocalTransport, Transport

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,29}$")]
"""Names of profiles, environments and targets: short, lower case, safe in URLs, labels and job names."""


class SiteError(ValueError):
    """The site file cannot be used; the message says where and why."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Model):
    """What one session gets, on each of its nodes."""

    nodes: int = Field(1, ge=1)
    cpus: int = Field(1, ge=1, description="CPU cores")
    memory_gb: float = Field(2, gt=0, description="GB (1000^3 bytes)")
    gpus: int = Field(0, ge=0)
    gpu_type: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,40}$", description="as in Slurm's gres, e.g. gh200")


class RuntimeLimits(_Model):
    """How long a session may ask for; `HH:MM:SS` or `D-HH:MM:SS`."""

    default: str = "02:00:00"
    max: str = "12:00:00"

    @model_validator(mode="after")
    def _ordered(self) -> RuntimeLimits:
        if parse_duration(self.default) > parse_duration(self.max):
            raise ValueError(f"default {self.default} is longer than max {self.max}")
        return self


class Profile(_Model):
    """One card of the spawn page: an amount of hardware."""

    name: Name
    title: str
    description: str = ""
    resources: Resources = Resources()
    runtime: RuntimeLimits = RuntimeLimits()
    targets: tuple[str, ...] | None = Field(None, description="allowed targets; all when absent")
    environments: tuple[str, ...] | None = Field(None, description="allowed environments; all when absent")
    groups: tuple[str, ...] | None = Field(None, description="JupyterHub groups that may use it; everyone when absent")


class Realisation(_Model):
    """How an environment looks on one target."""

    python: str | None = Field(None, description="interpreter that has jupyterhub and jupyterlab (local, Slurm)")
    prologue: str = Field(
        "", description="shell lines before the server starts (Slurm); the site's own, never a user's"
    )
    image: str | None = Field(None, description="container image (Kubernetes)")
    variables: dict[str, str] = Field({}, description="environment variables of the session")
    traits: dict[str, Any] = Field({}, description="traits of the spawner underneath, for what has no field here")


class Environment(_Model):
    """A software environment: what is installed in the session."""

    name: Name
    title: str
    description: str = ""
    targets: dict[str, Realisation] = Field(description="by target name; a target that is absent does not have it")
    groups: tuple[str, ...] | None = None


class _Target(_Model):
    name: Name
    title: str
    description: str = ""
    groups: tuple[str, ...] | None = None
    start_timeout: int = Field(ge=1, description="longest time from the request to a usable server, in seconds")
    starts_at_a_time: int = Field(20, ge=1, description="sessions that start there at the same time; others wait")
    max_waiting: int | None = Field(
        None, ge=1, description="sessions of this hub that may wait or start there before it counts as full"
    )
    traits: dict[str, Any] = Field({}, description="traits of the spawner underneath (SlurmSpawner, KubeSpawner, ...)")


class LocalTarget(_Target):
    """Processes on the hub's own machine: laptops and first steps. No isolation between users."""

    kind: Literal["local"]
    start_timeout: int = 90
    home: str = Field("home/{username}", description="each user's directory; relative to the state directory")
    skeleton: str | None = Field(None, description="copied into a home that lacks it; relative to the site file")
    max_sessions: int | None = Field(None, ge=1)


class SlurmTarget(_Target):
    """Allocations of a Slurm cluster."""

    kind: Literal["slurm"]
    start_timeout: int = Field(3600, description="includes the time in the queue")
    run_as: Literal["user", "hub"] = Field(
        "user", description="who submits: the user, through one sudoers line, or the hub's own account (tests, laptops)"
    )
    partitions: tuple[str, ...] | None = Field(None, description="allowed partitions; Slurm's default comes first")
    accounts: tuple[str, ...] | None = Field(None, description="allowed accounts; any well-formed one when absent")
    reservations: tuple[str, ...] | None = Field(
        None, description="allowed reservations; any well-formed one when absent"
    )
    gres: str = Field("gpu", description="name of the GPU resource in gres.conf")
    home: str | None = Field(
        None, description="job's directory, e.g. /users/{username}; the account's home when absent"
    )
    node_domain: str = Field(
        "", description="appended to node names so that the hub can reach them, e.g. .cluster.site"
    )
    bin: str | None = Field(None, description="directory of sbatch and squeue, when not on PATH")
    transport: Transport = Field(LocalTransport(), description="how the hub reaches Slurm: transport.py")

    @model_validator(mode="after")
    def _submitter(self) -> SlurmTarget:
        if self.transport.kind == "firecrest" and self.run_as == "user":
            raise ValueError("FirecREST acts as its client's account: run_as must be `hub`")
        return self


class KubernetesTarget(_Target):
    """Pods of a Kubernetes cluster; the connection is kubespawner's (in-cluster or kubeconfig)."""

    kind: Literal["kubernetes"]
    start_timeout: int = 600
    namespace: str = Field("default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    gpu_resource: str = "nvidia.com/gpu"


Target = Annotated[LocalTarget | SlurmTarget | KubernetesTarget, Field(discriminator="kind")]


class Defaults(_Model):
    """What is asked for when a request leaves it out; the first profile and environment when absent here."""

    profile: str | None = None
    environment: str | None = None


class HubSettings(_Model):
    """Where the hub listens and how people log in."""

    bind_ip: str = Field("127.0.0.1", description="address of the public proxy")
    port: int = Field(8000, ge=1, le=65535)
    hub_ip: str = Field("127.0.0.1", description="address of the hub itself, which sessions call back")
    hub_port: int = Field(8081, ge=1, le=65535)
    connect_url: str | None = Field(None, description="the hub as sessions reach it, e.g. http://hub.site:8081")
    login: Literal["shared-password", "pam", "config"] = Field(
        "shared-password", description="`config` leaves c.JupyterHub.authenticator_class to jupyterhub_config.py"
    )
    admins: tuple[str, ...] = ("admin",)


class Policy(_Model):
    """What the site decides rather than the user."""

    preference: tuple[str, ...] = Field(
        (), description="targets, best first; those not named follow in the order of the site file"
    )
    longest_wait: str = Field(
        "00:10:00", description="a target with a longer estimated wait is passed over; also the wait before a fallback"
    )
    fallback: Literal["never", "ask", "auto"] = Field(
        "ask", description="what happens to a session that waits although another target could start it"
    )
    idle_timeout: int | None = Field(None, ge=60, description="seconds without activity before a session is stopped")

    @field_validator("longest_wait")
    @classmethod
    def _duration(cls, text: str) -> str:
        parse_duration(text)
        return text


class Site(_Model):
    """A whole site. `path` is where it was read from; relative paths in it start there."""

    title: str = "Oberalp"
    hub: HubSettings = HubSettings()
    targets: tuple[Target, ...] = Field(min_length=1, description="in order of preference")
    environments: tuple[Environment, ...] = Field(min_length=1)
    profiles: tuple[Profile, ...] = Field(min_length=1)
    endpoints: tuple[SiteEndpoint, ...] = Field((), description="model endpoints that sessions are told of")
    defaults: Defaults = Defaults()
    policy: Policy = Policy()
    path: Path | None = None

    @field_validator("targets", "environments", "profiles", "endpoints")
    @classmethod
    def _unique(cls, items: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [item.name for item in items]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        if "auto" in names:
            raise ValueError("`auto` is how a request leaves the choice to the hub, so nothing may be named so")
        return items

    @model_validator(mode="after")
    def _references(self) -> Site:
        targets, environments = {t.name for t in self.targets}, {e.name for e in self.environments}
        for profile in self.profiles:
            _known(f"profile {profile.name}: targets", profile.targets or (), targets)
            _known(f"profile {profile.name}: environments", profile.environments or (), environments)
        for environment in self.environments:
            _known(f"environment {environment.name}: targets", tuple(environment.targets), targets)
        _known("policy: preference", self.policy.preference, targets)
        if len(set(self.policy.preference)) < len(self.policy.preference):
            raise ValueError("policy: preference: a target is named twice")
        if self.defaults.profile:
            _known("defaults: profile", (self.defaults.profile,), {p.name for p in self.profiles})
        if self.defaults.environment:
            _known("defaults: environment", (self.defaults.environment,), environments)
        return self

    def target(self, name: str) -> LocalTarget | SlurmTarget | KubernetesTarget:
        return next(t for t in self.targets if t.name == name)

    @property
    def preferred(self) -> tuple[str, ...]:
        """All targets' names, best first: the policy's preference, then the order of the site file."""
        named = self.policy.preference
        return (*named, *(t.name for t in self.targets if t.name not in named))

    def profile(self, name: str) -> Profile:
        return next(p for p in self.profiles if p.name == name)

    def environment(self, name: str) -> Environment:
        return next(e for e in self.environments if e.name == name)


def _known(where: str, names: tuple[str, ...], known: set[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)} is not defined (defined: {', '.join(sorted(known))})")


def parse_site(document: Any, path: Path | None = None) -> Site:
    """The site that `document` (a site file's content) describes; SiteError with each fault and its place."""
    if not isinstance(document, dict):
        raise SiteError(f"{path or 'site'}: a mapping is expected at the top")
    try:
        return Site.model_validate({**document, "path": path})
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc'])) or 'site'}: {e['msg']}" for e in error.errors()]
        raise SiteError("\n".join([f"{path or 'site'} cannot be used:", *faults])) from None


def load_site(path: str | Path) -> Site:
    """Read a site file; SiteError if it is missing, not YAML, or not a site."""
    path = Path(path).resolve()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SiteError(f"{path}: {error.strerror}. Set OBERALP_SITE to a file under sites/.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SiteError(f"{path} is not YAML: {error}") from None
    return parse_site(document, path)
