"""How the hub reaches a Slurm cluster: the `transport` of a Slurm target in the site file. Data only.

Secrets are named, never written: by a file, or by a variable of the hub's environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _absolute(path: str) -> str:
    full = Path(path).expanduser()
    if not full.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    return str(full)


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalTransport(_Model):
    """Slurm's commands on the hub's own machine."""

    kind: Literal["local"] = "local"


class SshTransport(_Model):
    """Slurm's commands on a login node, over one SSH connection whose host key is checked."""

    kind: Literal["ssh"]
    host: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$")
    port: int = Field(22, ge=1, le=65535)
    user: str | None = Field(None, description="the hub's account there; the same name as here when absent")
    key_file: AbsolutePath | None = Field(None, description="private key; the agent of $SSH_AUTH_SOCK when absent")
    known_hosts: AbsolutePath = Field(
        "~/.ssh/known_hosts", validate_default=True, description="the login node's host key"
    )
    launcher: str = Field(pattern=r"^/", description="path of launcher.py there, owned by root")
    variables: dict[str, str] = Field({}, description="environment of Slurm's commands there, e.g. SLURM_CONF")


class RestTransport(_Model):
    """Slurm's REST API (slurmrestd), with a token of each user."""

    kind: Literal["rest"]
    url: Url
    jwt_key_file: AbsolutePath | None = Field(None, description="Slurm's jwt_key; the hub signs tokens with it")
    token_command: tuple[str, ...] | None = Field(
        None, min_length=1, description="command that prints a token, instead of the key; {username} is replaced"
    )
    user: str | None = Field(None, description="the hub's account in Slurm; the one it runs as when absent")

    @model_validator(mode="after")
    def _one_source(self) -> RestTransport:
        if (self.jwt_key_file is None) == (self.token_command is None):
            raise ValueError("name either jwt_key_file or token_command")
        return self


class FirecrestTransport(_Model):
    """FirecREST v2, with the credentials of an OIDC client; all jobs belong to that client's account."""

    kind: Literal["firecrest"]
    url: Url
    system: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the cluster in FirecREST")
    token_url: Url
    client_id: str
    client_secret_file: AbsolutePath | None = None
    client_secret_env: str | None = Field(
        None, description="the hub's variable that holds the secret, instead of a file"
    )
    gpus_per_node: dict[str, int] = Field(
        {}, description="GPUs of each node by type, e.g. {gh200: 4}: FirecREST does not tell"
    )

    @model_validator(mode="after")
    def _one_secret(self) -> FirecrestTransport:
        if (self.client_secret_file is None) == (self.client_secret_env is None):
            raise ValueError("name either client_secret_file or client_secret_env")
        return self


Transport = Annotated[LocalTransport | SshTransport | RestTransport | FirecrestTransport, Field(discriminator="kind")]
