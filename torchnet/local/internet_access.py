"""Internet access of the nodes through eth0, if a user-mode network stack is installed.

slirp4netns joins the frontend bridge as one more host, the gateway and name server of all nodes. (Rejected:
pasta. Each instance serves a single guest address, so it does not work on a bridge with several nodes.)
Without it nodes can only reach each other, and the launcher says so.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess

from torchnet import constants
from torchnet.linux import tap
from torchnet.local import fork_safety
from torchnet.local.topology import TAP

_PROGRAM = "slirp4netns"
_SUBNET = constants.LOCAL_FRONTEND


class Internet:
    """Read ``available`` before the networks are built, call ``attach`` afterwards, and ``close`` at the end."""

    def __init__(self, wanted: bool) -> None:
        self._program = shutil.which(_PROGRAM) if wanted else None
        self._why = f"{_PROGRAM} is not installed" if self._program is None else ""
        if self._program is not None and not tap.usable():
            self._program, self._why = None, f"{tap.DEVICE} {tap.trouble()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def available(self) -> bool:
        return self._program is not None

    @property
    def note(self) -> str:
        return f"the nodes have no internet access: {self._why}" if self._why else ""

    def attach(self, pid: int) -> None:
        """Connect the frontend in the namespaces of process ``pid`` to this machine's network.

        The machine's own loopback stays unreachable, as it is from a pod.
        """
        if self._program is None:
            return
        self._exit, theirs = fork_safety.socketpair()
        # slirp4netns exits when this end closes: with this process, however it ends.
        command = [
            self._program,
            f"--exit-fd={theirs.fileno()}",
            f"--cidr={_SUBNET}",
            "--disable-host-loopback",
            f"--userns-path=/proc/{pid}/ns/user",
            "--netns-type=path",
            f"/proc/{pid}/ns/net",
            TAP,
        ]
        quiet = subprocess.DEVNULL
        with theirs, fork_safety.lock:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                start_new_session=True,
            )

    def failure(self) -> str:
        """Return a warning if slirp4netns has exited, else ""; call this once it has had time to start."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"the nodes have no internet access: {_PROGRAM} exited with code {self._process.returncode}"

    def close(self) -> None:
        if self._process is not None:
            self._exit.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
                return
            self._process.kill()
            self._process.wait()
