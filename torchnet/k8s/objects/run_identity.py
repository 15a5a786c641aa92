"""A run's name, and the secret with which its workers authenticate to each other.

The secret is an HMAC of the run's name and namespace with a key of the user, which is created once on this machine. So
a dry run prints the same text each time, and nobody without the key can derive a run's secret from its name.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping

from torchnet.errors import UsageError
from torchnet.text import printable

_BYTES = 32
_FIX = "use --token-secret NAME with an existing Secret that has the key token"


def run_name(script: str, random: str) -> str:
    """Return a run id from the script's name and ``random``: a DNS-1123 label that begins with a letter."""
    stem = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(os.path.basename(script))[0].lower()).strip("-")
    stem = stem if stem[:1].isalpha() else f"run-{stem}".rstrip("-")
    return f"{stem[:32].rstrip('-')}-{random}"


def new_run_name(script: str) -> str:
    """Return a run id from the script's name and 6 random hexadecimal digits."""
    return run_name(script, secrets.token_hex(3))


def token(key: bytes, run_id: str, namespace: str) -> str:
    """Return the secret of a run, 64 hexadecimal digits."""
    return hmac.new(key, f"torchnet/{namespace}/{run_id}".encode(), hashlib.sha256).hexdigest()


def key_path(environ: Mapping[str, str]) -> str:
    """Return the path of the user's key (XDG Base Directory Specification)."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "torchnet", "key")


def user_key(environ: Mapping[str, str]) -> bytes:
    """Return the user's key, 32 bytes that only the user can read; create it if it does not exist.

    Raises:
        UsageError: The file cannot be read or created, belongs to or is accessible to other users, or has another size.
    """
    path = key_path(environ)
    try:
        return _read(path) or _create(path)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise UsageError(
            f"cannot use the key for the secrets of runs, {printable(path, 200)}: {what}", fix=_FIX
        ) from None


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        status, data = os.fstat(descriptor), file.read(_BYTES + 1)
    shown = printable(path, 200)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(
            f"{shown}, the key for the secrets of runs, is accessible to other users", fix=f"rm {shown}"
        )
    if len(data) != _BYTES:
        raise UsageError(f"{shown} must have {_BYTES} bytes", fix=f"rm {shown}")
    return data


def _create(path: str) -> bytes:
    """Create the key.

    It is written to a temporary file, which is then linked to ``path``, so that two launches at once get the same key.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(temporary)
    return _read(path)
