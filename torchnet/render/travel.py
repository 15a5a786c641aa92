"""The agent as one zip: torchnet's own modules that run in a worker, and those of pyroute2 that they load.

Found without importing either: the launcher's machine may be no Linux, where pyroute2 cannot be imported.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from torchnet import names
from torchnet.errors import TorchnetError
from torchnet.render.archive import Entry, zipped

# What builds networks (kernel/build.py, tap.py) stays: the launcher's machine does it alone.
PARTS = (
    "__init__.py",
    "agent",
    "errors.py",
    "kernel/__init__.py",
    "kernel/links.py",
    "kernel/netlink.py",
    "kernel/pyroute2_door.py",
    "kernel/sockets.py",
    "kernel/syscalls.py",
    "names.py",
    "network",
    "training",
)
# The modules of pyroute2 that reading links, addresses, routes and sockets loads (torchnet.kernel); a test compares
# them with what an agent really loads. `plugins` finds its modules by listing its folder: all of them travel.
PYROUTE2 = (
    "__init__.py",
    "common.py",
    "config/__init__.py",
    "netlink/__init__.py",
    "netlink/exceptions.py",
    "netlink/rtnl/__init__.py",
    "netlink/rtnl/ifaddrmsg.py",
    "netlink/rtnl/ifinfmsg/__init__.py",
    "netlink/rtnl/ifinfmsg/plugins",
    "netlink/rtnl/iw_event.py",
    "netlink/rtnl/rtmsg.py",
)
_FIX = "pip install --force-reinstall torchnet-launch"
# A container's first process hears no SIGTERM before it has a handler, and the agent's own comes after the imports.
_MAIN = (
    b"""\
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(%d))

from torchnet.agent.program import main

sys.exit(main(sys.argv[1:]))
"""
    % names.STOPPED_CODE
)


def agent_zip() -> bytes:
    """``python3 torchnet.zip agent …``; the same bytes each time.

    Raises:
        TorchnetError: pyroute2 is not installed, or is one that torchnet does not know.
    """
    entries = [Entry("__main__.py", _MAIN)]
    own = Path(__file__).resolve().parent.parent
    entries += [Entry(one.name, uncommented(one.data)) for one in _modules("torchnet", own, PARTS)]
    spec = importlib.util.find_spec("pyroute2")  # of a top-level package: nothing is executed
    if spec is None or spec.origin is None:
        raise TorchnetError(
            "pyroute2 is not installed, and has to travel to the workers", fix="pip install pyroute2"
        )
    entries += _modules("pyroute2", Path(spec.origin).parent, PYROUTE2)
    return zipped(entries)


def uncommented(source: bytes) -> bytes:
    """Without the lines that are comments alone: a twentieth of the archive, which has to fit into a ConfigMap. They
    stay as empty lines, so that a traceback's numbers are those of the file.

    Strings are not told apart: a test holds that no travelling module has such a line in one.
    """
    return re.sub(rb"^[ \t]*#.*$", b"", source, flags=re.MULTILINE)


def _modules(package: str, folder: Path, parts: tuple[str, ...]) -> list[Entry]:
    found = []
    for part in parts:
        place = folder / part
        files = [place] if part.endswith(".py") else sorted(place.rglob("*.py"))
        try:
            found += [
                Entry(f"{package}/{file.relative_to(folder).as_posix()}", file.read_bytes()) for file in files
            ]
        except OSError as error:
            raise TorchnetError(f"{package}/{part}: {error.strerror}", fix=_FIX) from None
        if not files:
            raise TorchnetError(f"{package} has no {part}", fix=_FIX)
    return found
