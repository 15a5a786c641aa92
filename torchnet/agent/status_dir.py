"""Address sources from the pod's own annotations in a volume of the downward API: no right on the API is needed.

The kubelet mounts the volume before Multus has written network-status, and adds that a moment after the container's
start. An address that the kernel alone determines does not wait for it: the training container compares the two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from torchnet.constants import NETWORKS_FILE, STATUS_FILE
from torchnet.errors import NetworkError, NotYetError, UsageError
from torchnet.network.address_sources import MultusStatus
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Family
from torchnet.network.network_status import MAX_SIZE, StatusEntry, missing_status

STATUS_SECONDS = 10.0  # until a missing network-status is an error
_POLL_SECONDS = 0.1


class StatusDirSource:
    """The own attachments from the annotation; while it is not there, those that are known without it.

    Args:
        pod: the pod's name and namespace, for messages.
        seen: returns the attachments if they are known otherwise, else None: in the init container if the kernel alone
            determines them, in the training container from the init container.
    """

    def __init__(
        self,
        folder: str,
        pod: tuple[str, str],
        attachments: tuple[NetworkAttachment, ...],
        seen: Callable[[], tuple[StatusEntry, ...] | None],
        *,
        family: Family = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._pod, self._wanted, self._family = folder, pod, attachments, family
        self._seen, self._clock = seen, clock
        self._since: float | None = None

    def attachments(self) -> tuple[StatusEntry, ...]:
        if text := read(self._folder, STATUS_FILE):
            return MultusStatus(text, None, self._wanted, family=self._family).attachments()
        if (seen := self._seen()) is not None:
            return seen
        self._since = self._since or self._clock()
        error = missing_status(*self._pod, read(self._folder, NETWORKS_FILE))
        if self._clock() - self._since < STATUS_SECONDS:
            raise NotYetError(error, _POLL_SECONDS)
        raise error

    def rank0(self) -> tuple[str, ...]:
        raise NetworkError("only rank 0 knows its backend addresses before the join")


def read(folder: str, name: str) -> str:
    """Return an annotation's value; "" as long as the pod does not have it.

    Raises:
        UsageError: the file cannot be read.
    """
    path = os.path.join(folder, name)
    try:
        with open(path, errors="replace") as file:
            return file.read(MAX_SIZE + 1).strip()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix="mount a downwardAPI volume there") from error
