"""The way out of the nodes, through eth0, where a user-mode network stack is installed.

slirp4netns joins the frontend bridge as one more machine: gateway and name server of all nodes.  (pasta was tried: each
instance serves one guest address, so it cannot stand on a bridge with several nodes.)  Without it nodes reach each
other only, and the launcher says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from torchnet import constants
from torchnet.linux import tap
from torchnet.local.fabric import TAP

_PROGRAM = "slirp4netns"
_SUBNET = constants.LOCAL_FRONTEND


class Internet:
    """``available`` before the networks are made, ``attach`` when they are, ``close`` in the end."""

    def __init__(self, wanted: bool) -> None:
        self._program = shutil.which(_PROGRAM) if wanted else None
        self._why = f"{_PROGRAM} is not installed" if self._program is None else ""
        if self._program is not None and not tap.usable():
            self._program, self._why = None, f"{tap.DEVICE} {tap.trouble()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._exit = -1

    @property
    def available(self) -> bool:
        return self._program is not None

    @property
    def note(self) -> str:
        return f"the nodes have no way to the internet: {self._why}" if self._why else ""

    def attach(self, pid: int) -> None:
        """Connect the frontend in the namespaces of process ``pid`` to this machine's network.

        The machine's own loopback stays out of reach, as it would be from a pod.
        """
        if self._program is None:
            return
        read, self._exit = os.pipe()
        # It ends when the other end of this pipe is closed: with this process, however that ends.
        command = [
            self._program,
            f"--exit-fd={read}",
            f"--cidr={_SUBNET}",
            "--disable-host-loopback",
            f"--userns-path=/proc/{pid}/ns/user",
            "--netns-type=path",
            f"/proc/{pid}/ns/net",
            TAP,
        ]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, pass_fds=(read,), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        os.close(read)

    def trouble(self) -> str:
        """What people should know of it once it had the time to start, or ""."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"the nodes have no way to the internet: {_PROGRAM} ended with code {self._process.returncode}"

    def close(self) -> None:
        if self._process is not None:
            os.close(self._exit)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
                return
            self._process.kill()
            self._process.wait()
