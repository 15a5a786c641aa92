"""Run a command and record its traffic. The record never costs the command: what fails is a finding."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torchnet.agent import rdma
from torchnet.agent.rdma_counters import RdmaMeter
from torchnet.errors import NetworkError, UsageError
from torchnet.linux import rtnetlink
from torchnet.network.host_networks import HostBackend, HostNetwork, select_backend
from torchnet.network.network_status import canonical
from torchnet.text import listed, printable
from torchnet.witness import command
from torchnet.witness.account import HostAccount
from torchnet.witness.host_record import HostRecord

_T = TypeVar("_T")
_AFTER_FAILURE_SECONDS = 3600.0


def resolve_peers(names: Sequence[str]) -> dict[str, str]:
    """Return the peers' names by address; a name can have several addresses.

    Raises:
        UsageError: names that cannot be resolved.
    """
    found: dict[str, str] = {}
    problems = []
    for name in names:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            problems.append(f'"{printable(name, 80)}": {reason}')
            continue
        addresses = (canonical(str(answer[4][0]).partition("%")[0]) for answer in answers)
        found.update({address: name for address in addresses if address})
    if problems:
        raise UsageError(f"--peers {'; '.join(problems)}", fix="use names that resolve, or addresses")
    return found


class ObservationError(Exception):
    """The counters could not be read after the command had ended with ``exit_code``."""

    def __init__(self, exit_code: int, error: OSError) -> None:
        super().__init__(f"no receipt: the counters cannot be read any more ({error.strerror or error})")
        self.exit_code = exit_code


class _Recorder:
    """The account while the command runs; after an error in it, the command runs on without one."""

    def __init__(self, account: HostAccount) -> None:
        self._account = account
        self.failure = ""

    def fileno(self) -> int:
        return self._account.closed.fileno()

    def readable(self) -> None:
        if not self.failure:
            self._guarded(self._account.poll)
        else:
            self._drain()

    def sample(self) -> float:
        return _AFTER_FAILURE_SECONDS if self.failure else self._guarded(self._account.sample) or 0.0

    def close(self) -> None:
        if not self.failure:
            self._guarded(self._account.close)

    def _drain(self) -> None:
        for _ in self._account.closed.read():
            pass

    def _guarded(self, action: Callable[[], _T]) -> _T | None:
        try:
            return action()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            return None


def observe(argv: Sequence[str], networks: Sequence[HostNetwork], peers: dict[str, str]) -> HostRecord:
    """Run the command, and return the record of its traffic.

    Raises:
        NetworkError: this host does not have the networks; nothing was started.
        CannotExecuteError: the command cannot be executed.
        ObservationError: it has run, and there is no record.
    """
    present, devices = rtnetlink.interfaces(), rdma.devices()
    backend = select_backend(networks, present, devices)
    try:
        account = HostAccount()
    except OSError as error:
        raise NetworkError(
            f"cannot read the sockets of this host: {error.strerror or error}",
            fix="run the command without torchnet receipt",
        ) from None
    recorder = _Recorder(account)
    meter, began = RdmaMeter(isolated=False), time.time()
    exit_code = command.run(argv, recorder, recorder.readable, recorder.sample)
    ended = time.time()
    recorder.close()
    try:
        moved, addresses, counters = meter.read(()), account.addresses(), account.counters()
        vanished = account.vanished()
    except OSError as error:
        raise ObservationError(exit_code, error) from None
    return HostRecord(
        host=socket.gethostname(),
        command=os.path.basename(argv[0]),
        exit_code=exit_code,
        began=began,
        ended=ended,
        networks=tuple(map(str, networks)),
        backend=backend.interfaces,
        prefixes=backend.prefixes,
        peers=peers,
        addresses=addresses,
        counters=counters,
        headers=account.headers,
        protocols=account.protocols(),
        vanished=vanished,
        flows=account.flows(),
        connections=account.connections(),
        rdma={device.name: device.total for device in moved if device.openable},
        rdma_closed=tuple(device.name for device in moved if not device.openable),
        rdma_backend=_rdma_backend(backend, addresses),
        nccl=account.nccl,
        complete=account.complete and not recorder.failure and not account.owners.elsewhere,
        findings=_findings(account, recorder.failure),
    )


def _rdma_backend(backend: HostBackend, addresses: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the named devices, and those of the cards that carry the backend's interfaces."""
    rails = [(name, address) for name in backend.interfaces for address in addresses.get(name, ())]
    return tuple(dict.fromkeys((*backend.devices, *rdma.on_rails(rails))))


def _findings(account: HostAccount, failure: str) -> tuple[str, ...]:
    found = []
    if failure:
        found.append(f"the observation ended early ({failure}); the command ran on")
    if account.owners.elsewhere:
        found.append(
            f"processes in other network namespaces were not observed: {listed(sorted(account.owners.elsewhere))}"
        )
    if account.owners.unreadable:
        found.append(
            "processes whose sockets cannot be read, because they changed their user: "
            f"{listed(sorted(account.owners.unreadable))}"
        )
    return tuple(found)
