"""torchrun's and srun's lines for one of several hosts: which job they describe, and this host's part of it.

A line is of several hosts if it has a node rank or the address of one host (``--node-rank``, ``--master-addr``,
``--rdzv-endpoint``, or their PET_* variables), or if srun started it on several hosts.

Source:
    torch/distributed/run.py of PyTorch 2.15; srun(1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchnet.cli.torchrun_compat import Setting, from_variable, setting, whole
from torchnet.config.host_line import HostLine
from torchnet.errors import UsageError
from torchnet.hosts.slurm import SlurmStep, check_tasks, node_id, step_of
from torchnet.runtime import working_directory
from torchnet.text import listed, printable

if TYPE_CHECKING:
    from torchnet.config.resolution import Resolved

HOSTS = "hosts"
_MASTER_PORT, _RENDEZVOUS_PORT = 29500, 29400  # torchrun's defaults
_SLURM_NODES = "SLURM_STEP_NUM_NODES"


@dataclass(frozen=True)
class HostPlan:
    """What a line says about its host, before the number of nodes is known.

    Attributes:
        explicit: Whether it has ``--on hosts``.
        rank: The node rank.
        static: Whether that rank counts. As in torchrun, only the rendezvous backend "static", the default, uses it.
        endpoint: Where the nodes meet: ``--rdzv-endpoint``, else ``--master-addr``.
        port: ``--master-port``.
        step: The Slurm step, if srun started this process on several hosts.
        slurm_id: SLURM_NODEID.
    """

    explicit: bool
    rank: Setting | None
    static: bool
    endpoint: Setting | None
    port: Setting | None
    step: SlurmStep | None
    slurm_id: int | None

    @property
    def shown(self) -> str:
        """How the line names several hosts."""
        given = [one.shown for one in (self.rank, self.endpoint) if one is not None]
        return listed(given, len(given)) or (self.step.shown if self.step else "--on hosts")

    def line(self, nnodes: int, command: str) -> HostLine | None:
        """Return this host's part of a job of ``nnodes`` nodes; None if the job has one node, on this host.

        Args:
            command: The subcommand, for messages.

        Raises:
            UsageError: The line does not say where the nodes meet, or contradicts itself.
        """
        given = whole(self.rank) if self.rank is not None else None
        rank = given if self.static else None
        if rank is not None and rank >= nnodes:
            assert self.rank is not None
            raise UsageError(
                f"{self.rank.shown} is not below the number of nodes, {nnodes}",
                fix=f"add --nnodes {rank + 1}, or the number of hosts",
            )
        if nnodes == 1 and not self.explicit:
            return None
        if self.step is not None:
            check_tasks(self.step, command)
        host, port, where = self._where()
        wished = self.slurm_id if self.static or self.slurm_id is not None else given
        return HostLine(host, port, rank, wished, self.step.names if self.step else (), where)

    def _where(self) -> tuple[str, int, str]:
        if self.endpoint is not None:
            host, port = _split(self.endpoint)
            if self.endpoint.shown.startswith(("--rdzv-endpoint", "PET_RDZV_ENDPOINT")):
                port = _RENDEZVOUS_PORT if port is None else port
            else:
                port = whole(self.port) if self.port is not None else _MASTER_PORT
            if not 0 < port < 65536:
                raise UsageError(
                    f"{self.endpoint.shown} has the port {port}, which several hosts cannot meet at",
                    fix="use a free port of that host, such as 29400",
                )
            return host, port, self.endpoint.shown
        if self.step is not None:
            if not self.step.names:
                raise UsageError(
                    f"{self.step.shown} does not name its hosts (SLURM_STEP_NODELIST)",
                    fix="add --rdzv-endpoint HOST:29400 with the name of one of them",
                )
            return self.step.names[0], self.step.port, self.step.shown
        if self.rank is None:
            raise UsageError(
                "--on hosts needs the place where the hosts meet",
                fix="add --nnodes N --rdzv-endpoint HOST:29400, the same on each host; under srun this is not needed",
            )
        port = _MASTER_PORT if self.static else _RENDEZVOUS_PORT
        return "127.0.0.1", whole(self.port) if self.port is not None else port, "torchrun's default"


def plan(values: Mapping[str, object], environ: Mapping[str, str]) -> HostPlan | None:
    """Return what a command line says about its host; None if it is not for one of several hosts.

    Args:
        values: Values of typer's parameters.
        environ: Environment variables; torchrun's PET_* and Slurm's count.

    Raises:
        UsageError: It contradicts ``--on kubernetes``, or needs what torchnet does not have.
    """
    place = values.get("on") or environ.get("TORCHNET_ON") or ""
    if place == "local" or _is_standalone(values, environ):
        return None  # then torchrun reads neither a node rank nor an address
    rank = setting("--node-rank", values, environ)
    addresses = [
        one
        for flag in ("--rdzv-endpoint", "--master-addr")
        if (one := setting(flag, values, environ)) is not None
    ]
    given = [one.shown for one in (rank, *addresses) if one is not None]
    if place == "kubernetes":
        # Variables describe this process's host, and are ignored with a line, as all of torchrun's.
        typed = [setting(flag, values, {}) for flag in ("--rdzv-endpoint", "--master-addr")]
        own = setting("--node-rank", values, {})
        typed += [own if own is not None and whole(own) else None]
        if given := [one.shown for one in typed if one is not None]:
            raise UsageError(
                f"{listed(given, len(given))}: this line is for one of several hosts, but with --on kubernetes one "
                "launch starts all nodes",
                fix="remove it; or remove --on kubernetes, to start one node on each host",
            )
        return None
    step = step_of(environ)
    if step is not None and step.nodes < 2:
        step = None
    if not (place == HOSTS or given or step):
        return None
    by_flag = any(setting(flag, values, {}) for flag in ("--node-rank", "--rdzv-endpoint", "--master-addr"))
    if not (place or by_flag) and _place_of_files(values) not in ("", HOSTS):
        return None  # who wrote a file meant torchnet; a scheduler sets its variables for everybody
    backend = setting("--rdzv-backend", values, environ)
    if backend is not None and backend.value.startswith("etcd"):
        raise UsageError(
            f"{backend.shown}: torchnet does not use etcd; one of the hosts is the rendezvous",
            fix="use --rdzv-endpoint HOST:29400 with the name of one host",
        )
    return HostPlan(
        place == HOSTS,
        rank,
        backend is None or backend.value == "static",
        addresses[0] if addresses else None,
        setting("--master-port", values, environ),
        step,
        node_id(environ),
    )


def resolved(
    planned: HostPlan | None,
    resolve: Callable[[Mapping[str, Any], Mapping[str, str]], Resolved],
    command: str,
) -> Resolved:
    """Resolve a job, with this host's part of it if it is on several hosts.

    Args:
        planned: From :func:`plan`.
        resolve: Resolves the job with further fields, and by field what to show as their origin.
        command: The subcommand, for messages.

    Raises:
        UsageError: See :meth:`HostPlan.line`; or there is one host, and the command is ``verify``.
    """
    from torchnet.config.sources import DEFAULT

    if planned is None:
        return resolve({}, {})
    more: dict[str, Any] = {} if planned.explicit else {"on": HOSTS}
    shown = {} if planned.explicit else {"on": planned.shown}
    found = resolve(more, shown)
    if found.origins["nnodes"].layer == DEFAULT:
        more["nnodes"] = planned.step.nodes if planned.step else 1
        shown["nnodes"] = _SLURM_NODES if planned.step else "torchrun's default"
        found = resolve(more, shown)
    if command == "verify" and found.job.nnodes == 1:
        raise UsageError(
            f"{planned.shown}: torchnet verify checks the paths between hosts, and this line has one",
            fix="add --nnodes N, the number of hosts",
        )
    line = planned.line(found.job.nnodes, command)
    if line is None:
        more.pop("on", None)
        shown.pop("on", None)
        return resolve(more, shown)
    return replace(found, job=found.job.model_copy(update={"host_line": line}))


def notice(job: Any) -> str:
    """Return what differs from torchrun for a line that names no place: Slurm's hosts are one job; else ""."""
    line: HostLine | None = job.host_line
    if line is None or not line.where.startswith("Slurm"):
        return ""
    return (
        f"one job on the {job.nnodes} hosts of {line.where}, which meet at {line.endpoint}; --standalone runs a job of "
        "its own on each"
    )


def _place_of_files(values: Mapping[str, object]) -> str:
    """Return where the job file, else the project's, says that jobs run; "" if none does."""
    from torchnet.config.sources import from_job_file, from_project

    here = Path(working_directory())
    layers = [from_job_file(str(values["config"]), here)] if values.get("config") else []
    layers.append(from_project(here))
    return next((str(one.values["on"].raw) for one in layers if "on" in one.values), "")


def _is_standalone(values: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Return whether ``--standalone`` is given, or its variable, which ``--nnodes`` overrides."""
    if values.get("standalone"):
        return True
    given = from_variable("--standalone", environ) if values.get("nnodes") is None else None
    return given is not None and given.value != "0"


def _split(endpoint: Setting) -> tuple[str, int | None]:
    """Return the host and the port (None if missing) of HOST[:PORT]; an IPv6 address with a port needs brackets."""
    text, port = endpoint.value, None
    if text.startswith("["):
        host, end, rest = text[1:].partition("]")
        host = host if end else ""
        port = rest.removeprefix(":") or None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host = text
    if not host or host != host.strip() or any(not one.isprintable() or one in "/,@ " for one in host):
        raise UsageError(f"{endpoint.shown} is not HOST:PORT", fix="--rdzv-endpoint HOST:29400")
    return host, None if port is None else whole(
        Setting(port, f"the port of {printable(endpoint.shown, 120)}")
    )
