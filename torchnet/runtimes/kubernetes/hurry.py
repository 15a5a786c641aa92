"""Workers that were told to stop and have time left, ended at once: what runs in their containers is killed.

Not by a second deletion: a node's kubelet does not shorten a stop that is under way (SyncTerminatingPod in its
kubelet.go, kubernetes#113606), and a pod that is taken out by force runs on there, with its addresses. The agent sees
its processes end, and ends with the words that it always has.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from torchnet.errors import ClusterError
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.pods import WORKER
from torchnet.runtimes.kubernetes.refused import Refused

# All but the first process, which is the agent. Python is there, whatever else the image lacks.
_WORDS = ("python3", "-c", "import os; os.kill(-1, 9)")
_AT_ONCE = 16


def hurry(door: Door, namespace: str, pods: Collection[str]) -> str:
    """Kill the scripts of these pods. Why it could not be done, if it may not; a pod that has ended is none."""

    def one(pod: str) -> str:
        try:
            door.execute(namespace, pod, WORKER, _WORDS)
        except Refused as error:
            return str(error) if error.status in (401, 403) else ""
        except ClusterError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hurry") as pool:
        return next(filter(None, pool.map(one, pods)), "")
