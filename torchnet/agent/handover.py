"""What a pod's init container leaves for its training container: files in the folder ``--state``.

The state file holds the worker's own attachments, which the training container checks again. The named pipe ``started``
is for the pod's startup probe, which waits until the pipe has a writer: an agent whose script has started.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchnet.constants import STARTED_FILE
from torchnet.errors import NetworkError, UsageError
from torchnet.network.address_sources import AddressSource
from torchnet.network.network_status import MAX_SIZE, StatusEntry
from torchnet.network.network_status import parse as parse_status
from torchnet.network.network_status import render as render_status
from torchnet.text import loads

FILE = "state.json"
HOSTS_COPY = "hosts"  # to be mounted at /etc/hosts
SHARED = 0o666  # mode of what the training container writes: a template may give it another user
_FORMAT = 2
_FIX = (
    "the init container (torchnet agent --phase prepare) writes it; mount the same volume in both containers"
)


@dataclass(frozen=True)
class Handover:
    """What the init container knows; ``start`` is the job's start attempt (JobSet's restarts; "" without)."""

    run_id: str
    node_rank: int
    nnodes: int
    uid: str
    start: str
    attachments: tuple[StatusEntry, ...]

    def write(self, folder: str) -> None:
        """Write the state to ``folder`` atomically.

        Raises:
            OSError: it cannot be written.
        """
        value = {
            "format": _FORMAT,
            "run_id": self.run_id,
            "node_rank": self.node_rank,
            "nnodes": self.nnodes,
            "uid": self.uid,
            "start": self.start,
            "attachments": render_status(self.attachments),
            "origin": self.attachments[0].origin if self.attachments else "",
        }
        put(Path(folder) / FILE, (json.dumps(value, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: str) -> Handover:
        """Read the state.

        Raises:
            UsageError: it does not exist, or is of another version.
        """
        path = Path(folder) / FILE
        try:
            with path.open("rb") as file:
                value = loads(file.read(2 * MAX_SIZE + 1), max_size=2 * MAX_SIZE)
            return cls._of(value)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", fix=_FIX) from None
        except (KeyError, TypeError, ValueError, NetworkError) as error:
            raise UsageError(
                f"{path} is not a state file of this version of torchnet: {error}", fix=_FIX
            ) from None

    @classmethod
    def _of(cls, value: Any) -> Handover:
        if value["format"] != _FORMAT:
            raise ValueError(f"format {value['format']}")
        entries = parse_status(value["attachments"])
        return cls(
            run_id=str(value["run_id"]),
            node_rank=int(value["node_rank"]),
            nnodes=int(value["nnodes"]),
            uid=str(value["uid"]),
            start=str(value["start"]),
            attachments=tuple(replace(entry, origin=str(value["origin"])) for entry in entries),
        )


class HandoverSource:
    """The training container's address source: the init container's attachments, to be checked again.

    Args:
        source: the source of rank 0's addresses; None if the rendezvous does not take place on the backend.
    """

    def __init__(self, state: Handover, source: AddressSource | None = None) -> None:
        self._state = state
        self._source = source

    def attachments(self) -> tuple[StatusEntry, ...]:
        return self._state.attachments

    def rank0(self) -> tuple[str, ...]:
        return self._source.rank0() if self._source is not None else ()


def announce_start(folder: str) -> str:
    """Tell the startup probe that the script has started: become the pipe's writer, as long as this process runs.

    Returns:
        Why that failed; "" if it did not, or if there is no probe, and so no pipe.
    """
    if folder:
        try:
            # To open it for writing alone would fail before there is a reader.
            os.open(os.path.join(folder, STARTED_FILE), os.O_RDWR | os.O_NONBLOCK)
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"the startup probe is not told that the script has started: {error}"
    return ""


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file atomically for other processes; after a crash of the node, the init container writes it again.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
