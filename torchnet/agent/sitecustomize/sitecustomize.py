"""What the agent gives each Python process that it started.

It can tell where it is when the agent asks by a signal (without this, only a debugger could ask, which stock images
lack), finds torchnet, and does not abort at its end because of a thread of Gloo's.  Whatever ``sitecustomize`` the
installation has of its own is loaded as if this one were not here.
"""

import atexit
import os
import sys
import time

_PATIENCE_SECONDS = 1.0


def _stacks() -> None:
    place = os.environ.get("TORCHNET_STACKS", "")
    if place.count(":") == 1:
        import faulthandler

        number, descriptor = (int(part) for part in place.split(":"))
        # A child of the process inherits the variable, but not the file.
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:torchnet-stacks"):
            faulthandler.register(number, file=descriptor, all_threads=True)


def _torchnet() -> None:
    """``import torchnet`` finds what came along with the agent: last on the path, after what the image has itself."""
    root = os.path.abspath(__file__)
    for _ in range(4):
        root = os.path.dirname(root)
    if os.path.isfile(root):  # the zip, not the place of installed packages
        sys.path.append(root)


def _calm() -> None:
    """At the end of the script, wait until no thread of Gloo's is at work.

    What a thread has reduced it frees a moment after the script has the result, and needs the interpreter for that: if
    that is on its end by then, the process aborts, SIGABRT after a training that went well (pytorch#190489).  Torch's
    own destroy_process_group() waits for them only where nothing else holds the group, as FSDP's caches do.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while "torch.distributed" in sys.modules and time.monotonic() < deadline:
        time.sleep(0.01)  # leaves them the interpreter
        if not any(map(_works, os.listdir("/proc/self/task"))):
            return


def _works(task: str) -> bool:
    try:
        with open(f"/proc/self/task/{task}/stat", "rb") as file:
            name, _, rest = file.read().rpartition(b")")
    except OSError:
        return False  # it has ended
    return b"pt_gloo_runloop" in name and rest.split()[0] != b"S"


def _next() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine


try:
    _stacks()
except (ImportError, OSError, ValueError):
    pass  # no /proc, or not started by the agent: then nobody asks
if os.path.isdir("/proc/self/task"):
    atexit.register(_calm)  # the first to be registered is the last to run
_torchnet()
_next()
