"""The client of a Slurm target, by the transport that the site file names.

Each imports its own package only when it is used; `pip install jupyterhub-hybridspawner[ssh]` (rest, firecrest) has it.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ...site import SiteError, SlurmTarget
from ...transport import FirecrestTransport, RestTransport, SshTransport
from .cli import CommandLine
from .client import OnCall, SlurmClient, ignore_call


def connect(spec: SlurmTarget, on_call: OnCall = ignore_call) -> SlurmClient:
    """The client; it connects at the first question. SiteError if a package is missing."""
    try:
        return _client(spec, on_call)
    except ModuleNotFoundError as error:
        kind = spec.transport.kind
        raise SiteError(
            f"target {spec.name}: transport {kind} needs the package {error.name}: "
            f"pip install 'jupyterhub-hybridspawner[{kind}]'"
        ) from None


def _client(spec: SlurmTarget, on_call: OnCall) -> SlurmClient:
    transport = spec.transport
    if isinstance(transport, SshTransport):
        from .ssh import SshRunner

        runner = SshRunner(transport.host, transport.port, transport.user, transport.key_file, transport.known_hosts)
        return CommandLine(
            spec.run_as,
            spec.bin,
            spec.gres,
            runner=runner,
            launcher=transport.launcher,
            variables=transport.variables,
            on_call=on_call,
        )
    if isinstance(transport, RestTransport):
        from .rest import Rest
        from .tokens import printed_by, signed_by

        fetch = (
            signed_by(transport.jwt_key_file) if transport.jwt_key_file else printed_by(transport.token_command or ())
        )
        user = transport.user or pwd.getpwuid(os.getuid()).pw_name
        return Rest(transport.url, fetch, user, spec.run_as, spec.gres, on_call=on_call)
    if isinstance(transport, FirecrestTransport):
        from .firecrest import Firecrest, client_credentials

        tokens = client_credentials(transport.token_url, transport.client_id, lambda: secret(transport))
        return Firecrest(transport.url, transport.system, tokens, transport.gpus_per_node, on_call=on_call)
    return CommandLine(spec.run_as, spec.bin, spec.gres, on_call=on_call)


def secret(transport: FirecrestTransport) -> str:
    """The client's secret. OSError or KeyError, which name the place and not the secret, if it is not there."""
    if transport.client_secret_file is not None:
        return Path(transport.client_secret_file).read_text(encoding="utf-8").strip()
    assert transport.client_secret_env is not None
    return os.environ[transport.client_secret_env]
