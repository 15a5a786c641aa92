"""The zip archive of the agent that the pods receive: the same sources give the same bytes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchnet import constants
from torchnet.errors import TorchnetError

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip file
_UNIX, _REGULAR = 3, 0o100000


@dataclass(frozen=True)
class ArchiveEntry:
    """A file in an archive: its path with slashes, and its content."""

    name: str
    data: bytes
    executable: bool = False


def zipped(entries: Iterable[ArchiveEntry]) -> bytes:
    """Return a zip archive of ``entries``, sorted by name and with a fixed time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry in sorted(entries, key=lambda entry: entry.name):
            info = zipfile.ZipInfo(entry.name, _EPOCH)
            info.create_system = _UNIX
            info.external_attr = (_REGULAR | (0o755 if entry.executable else 0o644)) << 16
            archive.writestr(info, entry.data, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


# What sets up networks (linux/link_setup.py, tap.py), and with it pyroute2, is left out: only the launcher uses it.
PARTS = (
    "__init__.py",
    "agent",
    "constants.py",
    "errors.py",
    "linux/__init__.py",
    "linux/cgroup.py",
    "linux/link_speed.py",
    "linux/namespaces.py",
    "linux/netlink.py",
    "linux/protocol_counters.py",
    "linux/rtnetlink.py",
    "linux/sock_diag.py",
    "network",
    "rlimits.py",
    "units.py",
    "text.py",
    "training",
)
_DOCSTRING = re.compile(rb'^([ ]*)r?"""(?:(?!""").)*"""$', re.MULTILINE | re.DOTALL)
_FIX = "pip install --force-reinstall torchnet-launch"
# The kernel drops a SIGTERM to a container's first process until it has a handler, and the agent installs its own only
# after the imports. The collector of garbage would go through the modules' objects a hundred times. What Python does at
# its end takes 15 ms, which the next container of the pod would wait for.
_MAIN = b"""\
import gc
import os
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(%d if "%s" in os.environ else %d))

gc.set_threshold(50_000)

from torchnet.agent.zip_main import main

code = main(sys.argv[1:])
try:
    sys.stdout.flush()
    sys.stderr.flush()
except (AttributeError, OSError, ValueError):
    sys.exit(code)
os._exit(code)
""" % (constants.REPLACE_CODE, constants.REPLACED_VARIABLE.encode(), constants.STOPPED_CODE)


def agent_zip() -> bytes:
    """Return the archive that ``python3 torchnet.zip agent …`` runs, with the same bytes each time.

    Raises:
        TorchnetError: a module is missing or cannot be read.
    """
    return zipped([ArchiveEntry("__main__.py", _MAIN), *_modules()])


def shortened(source: bytes) -> bytes:
    """Return ``source`` with empty lines for those that hold only a comment, and with the shortest docstrings.

    This makes the archive, which has to fit into a ConfigMap, a quarter smaller. The line numbers of tracebacks stay
    correct. A dataclass without any docstring would generate one, which takes longer than to read this.

    Both expressions can match inside strings, too: a test checks that they do so in no module.
    """
    uncommented = re.sub(rb"^[ \t]*#.*$", b"", source, flags=re.MULTILINE)
    return _DOCSTRING.sub(lambda found: found[1] + b"'.'" + b"\n" * found[0].count(b"\n"), uncommented)


def _modules() -> list[ArchiveEntry]:
    own = Path(__file__).resolve().parents[2]
    found = []
    for part in PARTS:
        place = own / part
        files = [place] if part.endswith(".py") else sorted(place.rglob("*.py"))
        try:
            found += [
                ArchiveEntry(f"torchnet/{file.relative_to(own).as_posix()}", shortened(file.read_bytes()))
                for file in files
            ]
        except OSError as error:
            raise TorchnetError(f"torchnet/{part}: {error.strerror}", fix=_FIX) from None
        if not files:
            raise TorchnetError(f"torchnet has no {part}", fix=_FIX)
    return found
