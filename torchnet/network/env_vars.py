"""The environment variables of a training process: a table with reasons and sources, and how to apply it.

Pure: everything that needs a lookup (devices, addresses, torch's libuv support) is an input. A variable is
``owned`` if a stale value, such as a shell's MASTER_ADDR, would break the job: torchnet always sets it.
Otherwise the user's value wins, with a warning.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torchnet.network.network_status import canonical
from torchnet.text import printable


@dataclass(frozen=True)
class Variable:
    """One variable. ``consequence`` says what happens if the user's value stays ("" if ``owned``)."""

    name: str
    value: str
    reason: str
    source: str
    owned: bool = False
    consequence: str = ""


@dataclass(frozen=True)
class EnvironmentInputs:
    """Everything that the table depends on, for one process.

    Args:
        rank, local_rank, world_size: this process's ranks in the job and in its worker; processes of the job.
        nnodes, node_rank, nproc: workers, this worker's number, processes of this worker.
        rails: (interface, own address) by rail, at least one.
        family: 4 or 6, of the rails' addresses.
        master_addr: rank 0's address on the first rail, a bare literal.
        hostid: distinguishes local nodes of one machine for NCCL; None on a cluster, where hosts differ
            anyway.
        cpus_per_rank: CPUs per process if several share the machine; None: as torchrun decides.
        gpus: IDs of this worker's GPUs for CUDA_VISIBLE_DEVICES; () hides all, None changes nothing.
        libuv: whether this torch was built with it; None: unknown.
        rdma: RDMA devices on the rails (``mlx5_0``); () for plain TCP.
        rdma_prefix: the one network (CIDR) that contains the rails' addresses, from :func:`covering_prefix`.
        loopback: there is no backend; all workers share this machine's ``lo``.
        local: the networks are torchnet's own, in namespaces of this machine.
        gloo_devices, nccl_threads, nccl_sockets: the job's "tune" settings; None sets nothing.
        user, home, cache_dir: for a uid without passwd entry or writable HOME; None sets nothing.

    Raises:
        ValueError: ``rails`` is empty, or ``master_addr`` is not a bare IP literal.
    """

    rank: int
    local_rank: int
    world_size: int
    nnodes: int
    nproc: int
    node_rank: int
    run_id: str
    rails: tuple[tuple[str, str], ...]
    family: Literal[4, 6]
    master_addr: str
    master_port: int
    error_file: str
    restart_count: int = 0
    max_restarts: int = 0
    hostid: str | None = None
    cpus_per_rank: int | None = None
    gpus: tuple[str, ...] | None = None
    libuv: bool | None = None
    rdma: tuple[str, ...] = ()
    rdma_prefix: str | None = None
    loopback: bool = False
    local: bool = False
    user: str | None = None
    home: str | None = None
    cache_dir: str | None = None
    gloo_devices: int = 1
    nccl_threads: str | None = None
    nccl_sockets: str | None = None

    def __post_init__(self) -> None:
        if not self.rails:
            raise ValueError("rails is empty")
        if canonical(self.master_addr) is None:
            raise ValueError(f"master_addr is no bare IP literal: {self.master_addr!r}")

    @property
    def interfaces(self) -> str:
        return ",".join(interface for interface, _ in self.rails)

    @property
    def address_family(self) -> str:
        return "AF_INET6" if self.family == 6 else "AF_INET"

    @property
    def hcas(self) -> tuple[str, ...]:
        return () if self.loopback else self.rdma


Inputs = EnvironmentInputs


@dataclass(frozen=True)
class VariableRule:
    """A row of the table: ``value`` returns None if it does not apply, ``example`` documents it."""

    name: str
    example: str
    value: Callable[[Inputs], str | None]
    reason: str
    source: str
    owned: bool = False
    consequence: str = ""

    def variable(self, value: str) -> Variable:
        return Variable(self.name, value, self.reason, self.source, self.owned, self.consequence)


def _owned(
    name: str, example: str, value: Callable[[Inputs], str | None], reason: str, source: str
) -> VariableRule:
    return VariableRule(name, example, value, reason, source, owned=True)


def _ucx(i: Inputs) -> str:
    return ",".join([device if ":" in device else f"{device}:1" for device in i.hcas] + [i.interfaces])


def _threads(i: Inputs) -> str | None:
    if i.cpus_per_rank is not None:
        return str(max(1, i.cpus_per_rank))
    return "1" if i.nproc > 1 else None


_AGENT = "torch/distributed/elastic/agent/server/local_elastic_agent.py"
_INIT = "torch.distributed's documentation, environment variable initialization"
_NCCL = "NCCL's user guide, environment variables"
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
_LEAVES = "its traffic may leave the backend"
_GID = "RoCE may use a GID that is not the rail's address"

# fmt: off
RULES: tuple[VariableRule, ...] = (
    # Identity of the process.
    _owned("RANK", "0 … WORLD_SIZE-1", lambda i: str(i.rank),
           "This process's number in the whole job.", _INIT),
    _owned("WORLD_SIZE", "nnodes x nproc", lambda i: str(i.world_size),
           "Processes of the whole job.", _INIT),
    _owned("LOCAL_RANK", "0 … LOCAL_WORLD_SIZE-1", lambda i: str(i.local_rank),
           "This process's number in its worker, which scripts take as the GPU's index.", _AGENT),
    _owned("LOCAL_WORLD_SIZE", "nproc", lambda i: str(i.nproc),
           "Processes of this worker.", _AGENT),
    _owned("GROUP_RANK", "0 … nnodes-1", lambda i: str(i.node_rank),
           "This worker's number; Lightning takes its node rank from here.", _AGENT),
    _owned("GROUP_WORLD_SIZE", "nnodes", lambda i: str(i.nnodes),
           "Workers of the job.", _AGENT),
    # torchrun does not set NODE_RANK; scripts that read it then take every node for node 0.
    _owned("NODE_RANK", "0 … nnodes-1", lambda i: str(i.node_rank),
           "The worker's number for those who read it here, whom an old value would mislead.",
           "composer/utils/dist.py; lightning/fabric/plugins/environments/lightning.py"),
    _owned("ROLE_NAME", "default", lambda _: "default",
           "torchrun's name of the one role that all processes have.", _AGENT),
    _owned("ROLE_RANK", "as RANK", lambda i: str(i.rank),
           "This process's number in the one role.", _AGENT),
    _owned("ROLE_WORLD_SIZE", "as WORLD_SIZE", lambda i: str(i.world_size),
           "Processes of the one role.", _AGENT),
    _owned("TORCHELASTIC_RUN_ID", "the run's id", lambda i: i.run_id,
           "Lightning and torch.distributed.is_torchelastic_launched() recognise torchrun by it.", _AGENT),
    _owned("TORCHELASTIC_RESTART_COUNT", "0 … max_restarts", lambda i: str(i.restart_count),
           "How often the whole group has been restarted.", _AGENT),
    _owned("TORCHELASTIC_MAX_RESTARTS", "max_restarts", lambda i: str(i.max_restarts),
           "How often the whole group may be restarted.", _AGENT),
    _owned("TORCHELASTIC_ERROR_FILE", "a file for each process", lambda i: i.error_file,
           "@record writes the exception there, and torchnet reads the root cause from it.",
           "torch/distributed/elastic/multiprocessing/errors/__init__.py"),
    VariableRule("TORCHELASTIC_SIGNALS_TO_HANDLE", _SIGNALS, lambda _: _SIGNALS,
         "As under torchrun, for scripts that start processes through torch.distributed.elastic.",
         "torch/distributed/launcher/api.py", consequence="processes that the script starts take other signals"),
    # Rendezvous.
    _owned("MASTER_ADDR", "rank 0's address on net1", lambda i: i.master_addr,
           "Rank 0's store on the first rail; a bare literal, since brackets do not resolve and a name could "
           "become eth0's address.", _INIT),
    _owned("MASTER_PORT", "29501 … 29599", lambda i: str(i.master_port),
           "The store's port, another one after each restart: a lingering socket does no harm.", _INIT),
    _owned("TORCHELASTIC_USE_AGENT_STORE", "False", lambda _: "False",
           "Rank 0's process hosts the store; with True all would be clients of one that nobody runs.",
           "torch/distributed/rendezvous.py"),
    VariableRule("USE_LIBUV", "0, where torch lacks libuv", lambda i: "0" if i.libuv is False else None,
         "This torch was built without libuv, as Debian's is, and would fail asking for it.",
         "torch/distributed/rendezvous.py",
         consequence="init_process_group fails where it asks for a libuv that is not there"),
    # Transport of the collectives.
    VariableRule("GLOO_SOCKET_IFNAME", "net1,net2", lambda i: ",".join([i.interfaces] * i.gloo_devices),
         "Gloo's listening interfaces: exact names, one for each rail (and again for each of tune.gloo_devices), as "
         "many on every worker; unset, Gloo takes the host name's address, which is eth0's.",
         "torch/csrc/distributed/c10d/ProcessGroupGloo.cpp",
         consequence=f"Gloo listens there, and {_LEAVES}"),
    VariableRule("TORCHCOMM_GLOO_INTERFACE", "net1", lambda i: i.rails[0][0],
         "The same for torchcomms, which takes one name.",
         "torchcomms, comms/torchcomms/gloo", consequence=f"torchcomms' Gloo listens there, and {_LEAVES}"),
    VariableRule("NCCL_SOCKET_IFNAME", "=net1,net2", lambda i: f"={i.interfaces}",
         "NCCL's interfaces; with '=', since a bare net1 is a prefix and matches net10, too.",
         _NCCL, consequence=f"NCCL listens there, and {_LEAVES}"),
    VariableRule("NCCL_SOCKET_FAMILY", "AF_INET6", lambda i: i.address_family,
         "The family of the rails' addresses; unset, an IPv4 address would go first.",
         _NCCL, consequence="NCCL may find no such address on the rails, or one that was not checked"),
    VariableRule("NCCL_SOCKET_NTHREADS", "where tune.nccl_socket_nthreads is set", lambda i: i.nccl_threads,
         "Threads of each connection.", _NCCL, consequence="as many threads are used"),
    VariableRule("NCCL_NSOCKS_PERTHREAD", "where tune.nccl_nsocks_perthread is set", lambda i: i.nccl_sockets,
         "Sockets of each of these threads.", _NCCL, consequence="as many sockets are used"),
    VariableRule("NCCL_HOSTID", "one for each local node", lambda i: i.hostid,
         "Local nodes share a machine: without it NCCL uses shared memory and net1 carries nothing.",
         _NCCL, consequence="NCCL takes equal ids for one machine and may bypass the backend"),
    # Unset on a cluster: Socket would switch off InfiniBand and plugins (EFA, GPUDirect-TCPX, SHARP), and IB
    # would switch off the plugins.
    VariableRule("NCCL_NET", "Socket, in local networks", lambda i: "Socket" if i.local and not i.loopback else None,
         "Local networks carry TCP alone: an RDMA device of the machine would bypass them.",
         _NCCL, consequence="NCCL uses that transport, wherever its devices are connected"),
    VariableRule("NCCL_CROSS_NIC", "0, with several rails", lambda i: "0" if len(i.rails) > 1 else None,
         "Rail i talks to rail i: only these paths are checked, and NCCL cannot tell isolated rails.",
         _NCCL, consequence="NCCL may use paths between different rails, which were not checked"),
    VariableRule("NCCL_IB_HCA", "=mlx5_0,mlx5_1, with RDMA devices",
         lambda i: f"={','.join(i.hcas)}" if i.hcas else None,
         "The RDMA devices on the rails; with '=', since mlx5_1 is a prefix and matches mlx5_10, too.",
         _NCCL, consequence="NCCL uses those devices, wherever they are connected"),
    # NCCL_IB_GID_INDEX is never set: the right index differs between pods.
    VariableRule("NCCL_IB_ADDR_FAMILY", "AF_INET6, with RDMA devices", lambda i: i.address_family if i.hcas else None,
         "RoCE takes the GID of this family; its default is IPv4.", _NCCL, consequence=_GID),
    VariableRule("NCCL_IB_ADDR_RANGE", "net1's prefix, with RDMA devices",
         lambda i: i.rdma_prefix if i.hcas else None,
         "RoCE takes the GID within this network instead of a link-local one.", _NCCL, consequence=_GID),
    VariableRule("TP_SOCKET_IFNAME", "net1", lambda i: i.rails[0][0],
         "The interface of torch.distributed.rpc, which takes one name.",
         "torch/csrc/distributed/rpc/tensorpipe_agent.cpp", consequence=f"RPC listens there, and {_LEAVES}"),
    VariableRule("UCX_NET_DEVICES", "mlx5_0:1,net1", _ucx,
         "UCX (the ucc backend, MPI) gets the rails' RDMA devices and interfaces alone.",
         "UCX's documentation, environment parameters",
         consequence="UCX uses those devices, wherever they are connected"),
    VariableRule("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1", lambda _: "1",
         "As under torchrun: a failed or timed-out NCCL collective ends the process instead of hanging.",
         _AGENT, consequence="a failed NCCL collective may hang"),
    # Compute resources.
    _owned("CUDA_VISIBLE_DEVICES", "the worker's GPUs",
           lambda i: None if i.gpus is None else ",".join(i.gpus),
           "The worker's share of the GPUs that you made visible, so that LOCAL_RANK counts within it.",
           "CUDA's programming guide, environment variables"),
    VariableRule("OMP_NUM_THREADS", "1, where processes share the machine", _threads,
         "As under torchrun: else each of several processes would start a thread for every CPU.",
         "torch/distributed/run.py", consequence="the processes may compete for the CPUs"),
    VariableRule("PYTHONUNBUFFERED", "1", lambda _: "1",
         "Lines arrive as they are written, and the last before a crash are not lost.",
         "Python's documentation, command line and environment", consequence="lines may arrive late"),
    # User and folders.
    _owned("HOME", "a writable folder, where HOME is none", lambda i: i.home,
           "Caches go there; in a restricted pod it is /, which is not writable.",
           "Python's documentation, os.path"),
    VariableRule("USER", "where the uid has no passwd entry", lambda i: i.user,
         "getpass.getuser(), which torch's compiler calls, fails for a uid without a passwd entry.",
         "Python's documentation, getpass", consequence="paths that contain the user's name follow it"),
    VariableRule("LOGNAME", "where the uid has no passwd entry", lambda i: i.user,
         "As USER; getpass reads it first.",
         "Python's documentation, getpass", consequence="paths that contain the user's name follow it"),
    VariableRule("TORCHINDUCTOR_CACHE_DIR", "where HOME is not writable", lambda i: i.cache_dir,
         "torch.compile keeps its results there.",
         "torch/_inductor/runtime/cache_dir_utils.py", consequence="torch.compile keeps its results there"),
)
# fmt: on


__all__ = ["EnvironmentInputs", "Variable", "build", "covering_prefix", "explain", "merge"]

# torchnet does not set these, but they override what it sets.
_HAZARDS = {
    "NCCL_COMM_ID": "it overrides which interface NCCL starts on; unset it",
    "NCCL_IB_GID_INDEX": "the right index differs from worker to worker; unset it",
}
# These take exact names; NCCL's notation in them has broken jobs (aws-do-eks#51).
_EXACT = ("GLOO_SOCKET_IFNAME", "TORCHCOMM_GLOO_INTERFACE", "TP_SOCKET_IFNAME")


def build(inputs: EnvironmentInputs) -> tuple[Variable, ...]:
    """Return the variables of one process in table order, without those that do not apply to it."""
    pairs = ((rule, rule.value(inputs)) for rule in RULES)
    return tuple(rule.variable(value) for rule, value in pairs if value is not None)


def explain() -> tuple[Variable, ...]:
    """Return the whole table for documentation; each ``value`` describes the value, or when it is set."""
    return tuple(rule.variable(rule.example) for rule in RULES)


def merge(
    user_env: Mapping[str, str], variables: Sequence[Variable]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Merge ``variables`` into ``user_env``; return the process's environment and the warnings.

    An owned variable replaces the user's value; one warning lists all of these. Any other variable yields to
    the user's value, with a warning each unless they are equal. All ranks of a worker get the same warnings,
    so show them once. The arguments stay unchanged.
    """
    env = dict(user_env)
    kept = []
    replaced = []
    for variable in variables:
        theirs = user_env.get(variable.name)
        if theirs is None:
            env[variable.name] = variable.value
        elif variable.owned:
            env[variable.name] = variable.value
            if not _is_share(variable, theirs):
                replaced.append(variable.name)
        elif theirs != variable.value:
            follows = _notation(variable.name, theirs) or variable.consequence
            kept.append(
                f"{variable.name}={printable(theirs, 80)} stays as you set it (torchnet would set "
                f"{printable(variable.value, 80)}): {follows}"
            )
    hazards = [
        f"{name}={printable(user_env[name], 80)} is set: {hazard}"
        for name, hazard in _HAZARDS.items()
        if name in user_env
    ]
    if replaced:
        kept.insert(
            0, f"{', '.join(replaced)} of your environment: replaced, torchnet gives each process its own"
        )
    return env, tuple(kept + hazards)


def covering_prefix(networks: Sequence[str]) -> str | None:
    """Return the smallest network (CIDR) that contains all ``networks`` (``ADDRESS/PREFIX`` each).

    For NCCL_IB_ADDR_RANGE, which takes one network.

    Returns:
        None for mixed families, or if link-local addresses, which it is to exclude, would be in the network.

    Raises:
        ValueError: an entry is not a network.
    """
    parsed = [ipaddress.ip_interface(text).network for text in networks]
    if len({network.version for network in parsed}) != 1:
        return None
    first, last = min(n[0] for n in parsed), max(n[-1] for n in parsed)
    bits = 128 if first.version == 6 else 32
    cover = ipaddress.ip_network(f"{first}/{bits - (int(first) ^ int(last)).bit_length()}", strict=False)
    local = ipaddress.ip_network("fe80::/10" if cover.version == 6 else "169.254.0.0/16")
    return None if cover.overlaps(local) else str(cover)


def _is_share(variable: Variable, theirs: str) -> bool:
    """Return whether the value is a share of the GPUs that the user made visible, so nothing is overridden."""
    if variable.name != "CUDA_VISIBLE_DEVICES":
        return False
    visible = {part.strip() for part in theirs.split(",")}
    return not variable.value or set(variable.value.split(",")) <= visible


def _notation(name: str, value: str) -> str:
    if name not in _EXACT:
        return ""
    if value[:1] in ("=", "^"):
        return "'=' and '^' are NCCL's notation; only exact names work here, so the start will fail"
    return "" if value else "empty counts as unset, so the host name's address is taken, which is eth0's"
