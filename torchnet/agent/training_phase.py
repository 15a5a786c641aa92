"""Phases 4 to 6 on one worker: run its processes, monitor them, and build its receipt."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torchnet import constants
from torchnet.agent.accounting import TrafficAccount
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Reporter
from torchnet.agent.link_monitor import LinkMonitor
from torchnet.agent.messages import Heartbeat
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.agent.process_tree import descendants
from torchnet.agent.progress_meter import ProgressMeter
from torchnet.agent.rank_process import Process
from torchnet.agent.rate_sampler import NODES, RateSampler
from torchnet.agent.rdma_counters import RdmaMeter
from torchnet.agent.rendezvous import control_cookies
from torchnet.agent.spec import AgentSpec
from torchnet.agent.transports import NcclWatch, Transports, causes, unseen
from torchnet.agent.worker_processes import WorkerProcesses
from torchnet.linux import cgroup
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable, encode, fingerprint

if TYPE_CHECKING:
    from torchnet.agent.host_accounting import HostTrafficAccount

Notice = Callable[[str], None]


class TrainingPhase:
    """The training on this worker, over all attempts.

    Args:
        ended: called with each process that ends by itself.
        rail_lost: called with a rail that stayed down, and a description.
        notice: gets messages for the user.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        reporter: Reporter,
        *,
        ended: Callable[[Process], None],
        rail_lost: Callable[[Rail, str], None],
        notice: Notice,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._rail_lost = rail_lost
        self._notice = notice
        self._account: TrafficAccount | None = None
        self._monitor: LinkMonitor | None = None
        self._rate_sampler: RateSampler | None = None
        self._rdma: RdmaMeter | None = None
        self._hcas: tuple[str, ...] = ()
        self._declared: tuple[str, ...] = ()
        self._causes: tuple[str, ...] = ()
        self._nccl: NcclWatch | None = None
        self._oom_kills = cgroup.oom_kills()
        self._progress = ProgressMeter(loop.time)
        self._store_port = 0
        self._run = ""  # the folder of the log files
        self.processes = WorkerProcesses(loop, spec, reporter, ended)

    @property
    def begun(self) -> bool:
        """Whether any attempt has begun to start processes."""
        return self._account is not None

    def start(self, table: PeerTable, rails: tuple[Rail, ...], port: int, attempt: int) -> None:
        """Start the processes.

        Raises:
            OSError: the program cannot be executed.
        """
        environment = ProcessEnvironment(self._spec, table.rows[0].rails[0].address, rails, port, attempt)
        if attempt == 0:
            for warning in environment.warnings():
                self._notice(warning)
            if self._spec.loopback and self._spec.stall_action == "stop" and not self._spec.node_rank:
                self._notice("--stall-action stop has no effect on loopback: no bytes are counted there")
        if self._account is None:
            # A pod with a network namespace of its own; other networks may be the machine's.
            if self._spec.nnodes > 1 and not self._spec.loopback:
                self._nccl = NcclWatch()
            self._rdma = RdmaMeter(isolated=self._spec.network == "multus-status")
            own = table, self._spec.node_rank, control_cookies
            if self._spec.network == "host" and not self._spec.loopback:
                from torchnet.agent.host_accounting import HostTrafficAccount  # other networks need none

                self._account = host = HostTrafficAccount(*own)
                self._look(host)
            else:
                self._account = TrafficAccount(*own)
            self._loop.watch(self._account.closed, self._account.poll)
            if not self._spec.loopback:
                self._monitor = LinkMonitor(
                    self._loop, rails, self._spec.link_grace, self._report_rail, self._rail_lost
                )
                if self._spec.measure and self._spec.node_rank < NODES:
                    with suppress(OSError):
                        self._rate_sampler = RateSampler(
                            self._loop, {*(rail.interface for rail in rails), *environment.declared}
                        )
        else:
            self._account.learn(table)
            self._account.resume()
            if self._monitor is not None:
                self._monitor.follow(rails)
        self._store_port = port
        self._declared = environment.declared
        self._hcas, self._causes = environment.on_rails, causes(environment.of(0, ""))
        environment.table = self.processes.keep(f"table-{attempt}", encode(table))
        self.processes.keep(
            f"table-{attempt}{constants.CONTROL_SUFFIX}", array("Q", control_cookies).tobytes()
        )
        # The same on all workers, and new in each start of the job.
        self._run = self._run or f"{self._spec.run_id}_{fingerprint(table)[:6]}"
        self.processes.start(attempt, self._run, environment.of)

    def _look(self, account: HostTrafficAccount) -> None:
        if self._account is account:
            self._loop.later(account.look(), lambda: self._look(account))

    def pause_account(self) -> None:
        """Do not count torchnet's own datagrams, until the next start."""
        if self._account is not None:
            self._account.pause()

    def pause_monitor(self) -> None:
        """Monitor no rail until the next start, which may have other rails."""
        if self._monitor is not None:
            self._monitor.follow(())

    def _report_rail(self, text: str) -> None:
        """Report a rail's state. A pod's log does not name the worker; the local console does."""
        self._notice(text if self._spec.phase == "all" else f"{self._spec.name}: {text}")

    def heartbeat(self, *, frozen: bool) -> Heartbeat:
        """Describe the traffic so far, and the state of the processes; to be called once a second."""
        moved = 0
        if self._nccl is not None:
            self._nccl.poll(descendants)
        if self._account is not None:
            fresh = self._account.refresh()
            # If no device is known to be on a rail, any may be: to miss a stall is better than to stop a good job.
            by_rdma = self._rdma.moved(self._hcas) if self._rdma else 0
            moved = self._account.latest_peer_bytes + by_rdma
            if fresh:
                sockets = self._account.peer_sockets(self._store_port)
                self._progress.update(sockets, self._account.closed_peer_bytes + by_rdma)
        progress = self._progress
        devices = self._rdma.uncounted(self._hcas) if self._rdma and self._account else []
        return Heartbeat(
            moved,
            frozen,
            progress.count,
            self.processes.blocked(),
            progress.trickle,
            unseen(devices, moved, nccl=self._nccl is not None and self._nccl.seen),
        )

    def stuck(self, table: PeerTable) -> list[str]:
        """Describe peers that do not acknowledge data."""
        return self._account.stuck(table, self._spec.name) if self._account else []

    def out_of_memory(self) -> str:
        """Describe an out-of-memory kill in the container since the last call, or return ""."""
        now = cgroup.oom_kills()
        if now is None or self._oom_kills is None or now <= self._oom_kills:
            return ""
        self._oom_kills = now
        limit = min((group.limit for group in cgroup.memory()), default=0)
        return f"its container exceeded its memory limit{f' of {limit >> 20} MiB' if limit else ''}"

    def receipt(self, table: PeerTable, rails: tuple[Rail, ...]) -> dict[str, Any]:
        """Close the account and build this worker's receipt."""
        from torchnet.agent import receipt  # no start needs it

        traffic = self._account.settle() if self._account else None
        flaps = self._monitor.flaps if self._monitor else []
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        sampler, self._rate_sampler = self._rate_sampler, None
        codes = self.processes.codes()
        rdma = self._rdma.read(self._hcas) if self._rdma else ()
        transports = Transports(rdma, self._nccl is not None and self._nccl.seen, self._causes)
        worker_receipt = receipt.worker(
            self._spec, table, rails, traffic, codes, flaps, transports, self._declared
        )
        return {**worker_receipt, "series": sampler.close() if sampler else None}

    def close(self) -> None:
        """Release all resources."""
        self.processes.close()
        for part in (self._monitor, self._account, self._rate_sampler):
            if part is not None:
                part.close()
