"""An environment on its way through a place where others may look: the arguments of sbatch on FirecREST's login node.

Two halves, of which neither tells anything alone: the ciphertext, which goes through the job's variables, and the key,
which stands in the script (that only the job's owner and Slurm's operators can read). The job joins them with openssl,
which every cluster's nodes have, and gets each value back byte by byte: quotes, commas and line breaks too.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shlex
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .directives import after_directives

VARIABLE = "HYBRIDSPAWNER_ENVIRONMENT"
_ROUNDS = 1000  # the key is 256 random bits; the rounds are only part of openssl's format


def seal(script: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The script that opens the environment before its first command, and the variable to submit it with."""
    key, salt = secrets.token_hex(32), os.urandom(8)
    derived = hashlib.pbkdf2_hmac("sha256", key.encode(), salt, _ROUNDS, 48)
    encryptor = Cipher(algorithms.AES(derived[:32]), modes.CTR(derived[32:])).encryptor()
    plain = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items() if _name(name))
    sealed = base64.b64encode(b"Salted__" + salt + encryptor.update(plain.encode()) + encryptor.finalize()).decode()
    opening = (
        f"# The session's environment: submitted encrypted, because others can see how a job is submitted.\n"
        f"_opened=$(openssl enc -d -aes-256-ctr -pbkdf2 -iter {_ROUNDS} -md sha256 -a -A -pass fd:3 3<<<{key} \\\n"
        f'  <<<"${VARIABLE}") || {{ echo "openssl on $(hostname) cannot open the environment" >&2; exit 1; }}\n'
        f'eval "$_opened"\nunset _opened {VARIABLE}\n'
    )
    return after_directives(script, opening), {VARIABLE: sealed}


def _name(name: str) -> bool:
    """Whether a shell can export a variable of this name."""
    return name.isascii() and name.isidentifier()
