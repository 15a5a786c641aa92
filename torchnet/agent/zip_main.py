"""``python3 torchnet.zip agent …``: the commands for workers, without the launcher's dependencies.

From a zip, Python compiles every module at every start: 0.25 s in each of a pod's two containers. So the first one
extracts the modules next to the state, where Python caches the bytecode for the second.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from torchnet.errors import TorchnetError

_FOLDER = "agent"  # below --state
_USAGE = (
    "usage: torchnet.zip agent [FLAGS] SCRIPT [ARGS]... | torchnet.zip env [FLAGS] | torchnet.zip --version\n"
)


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; print torchnet's errors without a traceback."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    _settle(rest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        if command == "agent":
            from torchnet.agent.command_line import main as agent

            return agent(rest)
        if command == "env":
            from torchnet.agent.env_command import main as env

            return env(rest)
    except TorchnetError as error:
        sys.stderr.write(f"torchnet: {error}\n")
        return error.exit_code
    if command == "--version":
        sys.stdout.write(f"torchnet {sys.modules['torchnet'].__version__}\n")
        return 0
    sys.stderr.write(_USAGE)
    return 2


def _settle(argv: Sequence[str]) -> None:
    """Import from modules extracted below ``--state`` if possible, else from the zip, which is slower."""
    archive = sys.path[0]
    state = argv[argv.index("--state") + 1] if "--state" in argv[:-1] else ""
    if not state or not os.path.isfile(archive):
        return
    import zipfile

    place = os.path.join(state, _FOLDER)
    try:
        if not os.path.isdir(place):
            part = f"{place}.{os.getpid()}"
            with zipfile.ZipFile(archive) as file:
                file.extractall(part)
            os.rename(part, place)
    except (OSError, zipfile.BadZipFile):
        return  # read-only, or full
    sys.dont_write_bytecode = False  # override the image: the bytecode is the purpose
    sys.path.insert(0, place)
    for package in (sys.modules["torchnet"], sys.modules["torchnet.agent"]):
        name = package.__name__.replace(".", os.sep)
        package.__path__ = [os.path.join(place, name)]
    sys.path_importer_cache.clear()
