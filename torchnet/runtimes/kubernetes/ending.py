"""Pods that are being deleted: how long each one still has, and whether its node has fallen silent over it.

A later deletion shortens the time that the API tells of, not the stop that a node's kubelet has begun with
(SyncTerminatingPod in its kubelet.go, kubernetes#113606): what counts is the time that a pod had when first seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torchnet.runtimes.kubernetes.pods import seconds

# A pod that is deleted with grace period 0 gives its address back while it still has it, as Whereabouts watches the
# API: the next run's pod then fails its duplicate address detection. So its node gets so long after the pod's own time:
_SILENT_SECONDS = 12.0


class Ending:
    """What is known from the objects of one removal, in the order in which they were seen.

    The cluster's clock and this machine's are not the same. But each answer has the server's date, and each stamp in it
    tells how late it was there at least, and what has passed since is counted here: so a pod that was deleted long ago
    need not be waited for anew, and no pod is for longer than its time, counted from when it was first seen.
    """

    def __init__(self, ahead: Callable[[], float] = lambda: float("-inf")) -> None:
        """``ahead``: of the server's clock to this machine's monotonic one, as far as its answers tell."""
        self._answers = ahead
        self._over: dict[str, float] = {}  # by UID, the server's time
        self._ahead = float("-inf")  # of the server's time, to this machine's monotonic one; at least
        self.longest = 0.0
        """The most seconds that one of the pods had for its end."""

    def look(self, meta: Mapping[str, Any]) -> None:
        """Note an object as it is now."""
        now = time.monotonic()
        fields = [field.get("time") for field in meta.get("managedFields") or ()]
        stamps = [seconds(stamp) for stamp in (meta.get("creationTimestamp"), *fields)]
        over = seconds(meta.get("deletionTimestamp"))
        if over:
            grace = float(meta.get("deletionGracePeriodSeconds") or 0)
            self.longest = max(self.longest, grace)
            self._over.setdefault(str(meta["uid"]), over)
            stamps.append(over - grace)  # the stamp is no time that has come, but when its own is over
        self._ahead = max(self._ahead, *(stamp - now for stamp in stamps if stamp), float("-inf"))

    def silent(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's time has long been over, so that nothing is to be heard of it any more."""
        over = self._over.get(str(meta["uid"]))
        ahead = max(self._ahead, self._answers())
        return over is not None and ahead + time.monotonic() > over + _SILENT_SECONDS
