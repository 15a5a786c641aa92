"""Running a command as an ordinary user, where the tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# No entry in /etc/passwd, as for many users of containers; not 65534, which stands for "unmapped" in a
# user namespace, so that wrong owners would look right.
UID = 54321
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class User:
    """An ordinary user with a folder of its own, and nothing else that is writable."""

    uid: int
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if name.startswith(("LC_", "LANG", "TORCHNET"))
        }
        own = {"HOME": str(self.home), "USER": "tester", "LOGNAME": "tester", "TMPDIR": str(self.home)}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), **kept, **own, **more}

    def popen(
        self, *command: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """``command`` in the user's home, as the user: no capability, no group of root's."""
        options = {"cwd": self.home, "errors": "replace", **options}
        options |= {"user": self.uid, "group": self.uid, "extra_groups": [], "umask": 0o022}
        process: subprocess.Popen[str] = subprocess.Popen(
            command, text=True, env=self.environment(**(env or {})), **options
        )
        return process

    def run(
        self, *command: str, timeout: float = 120, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.popen(*command, env=env, **{**pipes, **options}) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def networks(self) -> None:
        """Skip the test where this user may make no networks, as where AppArmor leaves them to root."""
        __tracebackhide__ = True
        done = self.run(sys.executable, "-m", "torchnet", "launch", "--no-python", "true")
        if done.returncode == 4:
            pytest.skip(f"an ordinary user: {done.stderr.splitlines()[0]}")


@contextmanager
def ordinary_user() -> Iterator[User]:
    """A user for the block; LookupError, with the reason, where there can be none."""
    if os.geteuid() != 0:
        raise LookupError("only root can become another user; the other tests run as an ordinary one here")
    # Not below pytest's own folder, which is closed to others.
    home = Path(tempfile.mkdtemp(prefix="torchnet-user-"))
    try:
        os.chown(home, UID, UID)
        user = User(UID, home)
        try:
            tried = user.run(sys.executable, "-c", "import torchnet.errors, pydantic")
        except PermissionError:
            tried = None
        if tried is None or tried.returncode != 0:
            why = tried.stderr.strip().splitlines()[-1] if tried else "permission denied"
            raise LookupError(f"other users cannot use {sys.executable} with {ROOT}: {why}")
        yield user
    finally:
        shutil.rmtree(home, ignore_errors=True)
