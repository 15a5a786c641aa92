"""Workers that were told to stop and have time left, ended at once: what runs in their containers is killed.

Not by a second deletion: a node's kubelet does not shorten a stop that is under way (SyncTerminatingPod in its
kubelet.go, kubernetes#113606), and a pod that is taken out by force runs on there, with its addresses. The agent sees
its processes end, and ends with the words that it always has.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Collection

from torchnet.errors import ClusterError
from torchnet.names import AGENT_ZIP, CODE_DIR, WORKER
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.execute import execute
from torchnet.runtimes.kubernetes.logs import Readers
from torchnet.runtimes.kubernetes.refused import Refused

_SECONDS = 20.0  # for all of them
_ENDED = (400, 404, 409)  # what is asked for a container that has ended meanwhile, or a pod that is gone
# All but the first process, if that is the agent: in a pod whose containers share their processes, or the node's, there
# would be others among them. Python is there, whatever else the image lacks.
_KILL = f"""\
import os, sys
if b"{CODE_DIR}/{AGENT_ZIP}" not in open("/proc/1/cmdline", "rb").read():
    sys.exit("the first process is not the agent")
os.kill(-1, 9)
"""


def hurry(door: Door, namespace: str, pods: Collection[str]) -> str:
    """Kill the scripts of these pods, 20 seconds at most. Why one could not be, or ""; a pod that has ended is none."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers = Readers()
    for pod in pods:
        readers.take(lambda pod=pod: answers.put(_one(door, namespace, pod)))  # type: ignore[misc]
    until = time.monotonic() + _SECONDS
    why = ""
    for _ in pods:
        try:
            why = why or answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return why or f"no answer from some within {_SECONDS:g} s"
    return why


def _one(door: Door, namespace: str, pod: str) -> str:
    try:
        execute(door, namespace, pod, WORKER, ("python3", "-c", _KILL))
    except Refused as error:
        return "" if error.status in _ENDED else str(error)
    except ClusterError as error:
        return str(error)
    except Exception as error:  # told, like all that keeps a worker from being ended
        return f"{pod}: {type(error).__name__}: {error}"
    return ""
