"""The state that a pod's init container leaves for its training container.

It holds the verified peer table, the worker's own attachments and rank 0's addresses, so the training container
needs neither the API nor its token.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchnet.errors import NetworkError, UsageError
from torchnet.network.network_status import StatusEntry
from torchnet.network.network_status import parse as parse_status
from torchnet.network.network_status import render as render_status
from torchnet.network.peer_table import MAX_SIZE, PeerTable, decode, encode
from torchnet.text import loads

FILE = "state.json"
_FORMAT = 1
_FIX = (
    "the init container (torchnet agent --phase prepare) writes it; mount the same volume in both containers"
)


@dataclass(frozen=True)
class Handover:
    """``table`` is verified by the preflight; ``start`` is the job's start attempt (JobSet's restarts; "" without).

    ``frontend`` is the host at which the rendezvous takes place; "" for rank 0's first rail.
    """

    run_id: str
    node_rank: int
    nnodes: int
    uid: str
    start: str
    attachments: tuple[StatusEntry, ...]
    rank0: tuple[str, ...]
    table: PeerTable
    frontend: str = ""

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
            "rank0": list(self.rank0),
            "frontend": self.frontend,
            "table": base64.b64encode(encode(self.table)).decode(),
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
            attachments=tuple(_from(entry, str(value["origin"])) for entry in entries),
            rank0=tuple(str(address) for address in value["rank0"]),
            table=decode(base64.b64decode(value["table"], validate=True)),
            frontend=str(value["frontend"]),
        )


class HandoverSource:
    """The training container's address source: the prepare container's results, to be checked again."""

    def __init__(self, state: Handover) -> None:
        self._state = state

    def attachments(self) -> tuple[StatusEntry, ...]:
        return self._state.attachments

    def rank0(self) -> tuple[str, ...]:
        return self._state.rank0


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file atomically.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _from(entry: StatusEntry, origin: str) -> StatusEntry:
    return StatusEntry(
        entry.name, entry.interface, entry.ips, entry.mac, entry.mtu, entry.default, entry.gateway, origin
    )
