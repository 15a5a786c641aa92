"""The way out of the nodes, through eth0, where a user-mode network stack is installed.

slirp4netns joins the frontend bridge as one more machine: the gateway and name server of all nodes.  (pasta serves a
single guest address for each instance, so that it cannot stand on a bridge with several.)  Without it nodes reach each
other only.
"""

from __future__ import annotations

import os
import shutil
import subprocess

_PROGRAM = "slirp4netns"


class Internet:
    """``available`` before the networks are made, ``attach`` when they are."""

    def __init__(self) -> None:
        self._program = shutil.which(_PROGRAM)
        self._process: subprocess.Popen[bytes] | None = None
        self._exit: int | None = None

    @property
    def available(self) -> bool:
        return self._program is not None

    @property
    def note(self) -> str:
        return "" if self.available else "the nodes have no way to the internet (slirp4netns is not installed)"

    def attach(self, pid: int) -> None:
        """Connect the frontend in the namespaces of process ``pid`` to this machine's network."""

    def close(self) -> None:
        if self._process is not None:
            if self._exit is not None:
                os.close(self._exit)
            self._process.wait()
