"""The one table of what a training process finds in its environment, each variable with its reason.

Pure: everything that has to be looked up (devices, addresses, whether libuv is there) is an input. A variable is
``owned`` where a value left over from elsewhere would break the job (a stale MASTER_ADDR in a shell, say): torchnet
sets those always. All others are defaults: what the user set wins, and a warning says what follows from it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torchnet.network.text import printable


@dataclass(frozen=True)
class Variable:
    """One variable. ``consequence`` completes "… is kept as you set it: " for what is not owned."""

    name: str
    value: str
    reason: str
    source: str
    owned: bool = False
    consequence: str = ""


@dataclass(frozen=True)
class EnvironmentInputs:
    """All that the table depends on, for one process.

    Args:
        rank, local_rank, world_size: of this process, over the whole job.
        nnodes, node_rank, nproc: workers, this worker's number, processes of this worker.
        rails: (interface, own address) by rail; the loopback runtime gives ("lo", "127.0.0.1").
        family: 4 or 6, of the rails' addresses.
        master_addr: rank 0's address on the first rail, a bare literal.
        hostid: tells local nodes of one machine apart for NCCL; None on a cluster, where hosts differ anyway.
        cpus_per_rank: CPUs for each process where several share the machine; None: as torchrun decides.
        gpus: ids of this worker's GPUs for CUDA_VISIBLE_DEVICES; () hides all, None leaves them as they are.
        libuv: whether this torch was built with it; None: not known.
        rdma: names of the RDMA devices on the rails (``mlx5_0``), () for plain TCP.
        rdma_prefix: the network in CIDR form that the rails' addresses are in, see :func:`covering_prefix`.
        user, home, cache_dir: set where the uid has no passwd entry or no writable HOME; None leaves them.
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
    user: str | None = None
    home: str | None = None
    cache_dir: str | None = None


@dataclass(frozen=True)
class _Rule:
    name: str
    value: Callable[[EnvironmentInputs], str | None]
    example: str
    reason: str
    source: str
    owned: bool = False
    consequence: str = ""

    def variable(self, value: str) -> Variable:
        return Variable(self.name, value, self.reason, self.source, self.owned, self.consequence)


_TORCHRUN = "torch/distributed/elastic/agent/server/local_elastic_agent.py"
_ENV_INIT = "PyTorch, torch.distributed, environment variable initialization"
_GLOO = "gloo/transport/tcp/device.cc and torch ProcessGroupGloo"
_NCCL = "NCCL user guide, environment variables"


def _interfaces(i: EnvironmentInputs) -> str:
    return ",".join(interface for interface, _ in i.rails)


def _ucx(i: EnvironmentInputs) -> str:
    devices = [device if ":" in device else f"{device}:1" for device in i.rdma]
    return ",".join(devices + [interface for interface, _ in i.rails])


def _threads(i: EnvironmentInputs) -> str | None:
    if i.cpus_per_rank is not None:
        return str(max(1, i.cpus_per_rank))
    return "1" if i.nproc > 1 else None


def _af(i: EnvironmentInputs) -> str:
    return "AF_INET6" if i.family == 6 else "AF_INET"


_RULES: tuple[_Rule, ...] = (
    _Rule("RANK", lambda i: str(i.rank), "0 … WORLD_SIZE-1",
          "This process's number in the whole job.", _ENV_INIT, True),
    _Rule("WORLD_SIZE", lambda i: str(i.world_size), "nnodes x nproc",
          "Processes of the whole job.", _ENV_INIT, True),
    _Rule("LOCAL_RANK", lambda i: str(i.local_rank), "0 … LOCAL_WORLD_SIZE-1",
          "This process's number in its worker; scripts take it as the GPU's index.", _TORCHRUN, True),
    _Rule("LOCAL_WORLD_SIZE", lambda i: str(i.nproc), "nproc",
          "Processes of this worker.", _TORCHRUN, True),
    _Rule("NODE_RANK", lambda i: str(i.node_rank), "0 … nnodes-1",
          "This worker's number; torchrun leaves it out, but Composer and Lightning read it, and an old value "
          "would mislead them.", "Lightning LightningEnvironment, Composer utils/dist.py", True),
    _Rule("GROUP_RANK", lambda i: str(i.node_rank), "0 … nnodes-1",
          "The same under torchrun's name.", _TORCHRUN, True),
    _Rule("GROUP_WORLD_SIZE", lambda i: str(i.nnodes), "nnodes",
          "Workers of the job.", _TORCHRUN, True),
    _Rule("ROLE_RANK", lambda i: str(i.rank), "as RANK",
          "torchrun numbers processes by role; here all have one.", _TORCHRUN, True),
    _Rule("ROLE_WORLD_SIZE", lambda i: str(i.world_size), "as WORLD_SIZE",
          "Processes of that one role.", _TORCHRUN, True),
    _Rule("ROLE_NAME", lambda i: "default", "default",
          "torchrun's name of the one role.", _TORCHRUN, True),
    _Rule("MASTER_ADDR", lambda i: i.master_addr, "rank 0's address on net1",
          "Where rank 0's store is, on the first rail; a bare literal, since brackets make the look-up fail and a "
          "name could resolve to eth0.", _ENV_INIT, True),
    _Rule("MASTER_PORT", lambda i: str(i.master_port), "29501 … 29599",
          "The store's port, another one after each restart, so that a port that lingers cannot fail it.",
          _ENV_INIT, True),
    _Rule("TORCHELASTIC_RUN_ID", lambda i: i.run_id, "the run's id",
          "Lightning, accelerate and torch.distributed.is_torchelastic_launched() recognise torchrun by it.", _TORCHRUN,
          True),
    _Rule("TORCHELASTIC_RESTART_COUNT", lambda i: str(i.restart_count), "0 … max_restarts",
          "How often the whole group has been restarted.", _TORCHRUN, True),
    _Rule("TORCHELASTIC_MAX_RESTARTS", lambda i: str(i.max_restarts), "max_restarts",
          "How often it may be.", _TORCHRUN, True),
    _Rule("TORCHELASTIC_ERROR_FILE", lambda i: i.error_file, "a file of this process",
          "@record writes the exception there; torchnet reads it for the root cause.",
          "torch/distributed/elastic/multiprocessing/errors", True),
    _Rule("TORCHELASTIC_USE_AGENT_STORE", lambda i: "False", "False",
          "Rank 0's process hosts the store itself; with True all would be clients of a store that nobody runs.",
          "torch/distributed/rendezvous.py", True),
    _Rule("CUDA_VISIBLE_DEVICES", lambda i: None if i.gpus is None else ",".join(i.gpus), "this worker's GPUs",
          "The worker's share of the machine's GPUs, so that LOCAL_RANK is the GPU's index and no two processes "
          "use one.", "CUDA programming guide, environment variables", True),
    _Rule("GLOO_SOCKET_IFNAME", _interfaces, "net1,net2",
          "Gloo listens on these; exact names, one for each rail and as many on every worker. Unset, it takes the "
          "host name's address, which is eth0's.", _GLOO, False,
          "Gloo listens there, and its traffic may leave the backend"),
    _Rule("TORCHCOMM_GLOO_INTERFACE", lambda i: i.rails[0][0], "net1",
          "The same for torchcomms' Gloo, which takes one name.", "torchcomms, TorchCommGloo", False,
          "torchcomms' Gloo listens there, and its traffic may leave the backend"),
    _Rule("NCCL_SOCKET_IFNAME", lambda i: "=" + _interfaces(i), "=net1,net2",
          "NCCL's bootstrap and TCP traffic; with '=', since a bare net1 also matches net10.", _NCCL, False,
          "NCCL listens there, and its traffic may leave the backend"),
    _Rule("NCCL_SOCKET_FAMILY", _af, "AF_INET6",
          "The rails' family; unset, NCCL takes an IPv4 address where there is one.", _NCCL, False,
          "NCCL may find no address of that family on the rails, or one that was not checked"),
    _Rule("NCCL_NET", lambda i: None if i.rdma else "Socket", "Socket, where no RDMA device is on the rails",
          "Plain TCP over the rails: an RDMA card or plugin that is not on the backend must not take the traffic "
          "away. With RDMA devices it stays unset.", _NCCL, False,
          "NCCL uses that transport, wherever its devices are connected"),
    _Rule("NCCL_CROSS_NIC", lambda i: "0" if len(i.rails) > 1 else None, "0, with several rails",
          "Rail i talks to rail i: only these paths were checked, and rails can be isolated from each other, which NCCL "
          "cannot tell.", _NCCL, False,
          "NCCL may use paths between different rails, which were not checked"),
    _Rule("NCCL_HOSTID", lambda i: i.hostid, "one for each local node",
          "Local nodes share a machine; without it NCCL would use shared memory between them, and net1 would carry "
          "nothing.", _NCCL, False,
          "NCCL takes processes with one id for one machine's and may bypass the backend"),
    _Rule("NCCL_IB_HCA", lambda i: "=" + ",".join(i.rdma) if i.rdma else None, "=mlx5_0,mlx5_1, with RDMA devices",
          "The RDMA devices on the rails, exactly ('=': mlx5_1 also matches mlx5_10).", _NCCL, False,
          "NCCL uses those devices, wherever they are connected"),
    _Rule("NCCL_IB_ADDR_FAMILY", lambda i: _af(i) if i.rdma else None, "AF_INET6, with RDMA devices",
          "RoCE takes the GID of this family; the default is IPv4. NCCL_IB_GID_INDEX stays unset, since the index "
          "differs from pod to pod.", _NCCL, False,
          "RoCE may choose a GID that is not the rail's address"),
    _Rule("NCCL_IB_ADDR_RANGE", lambda i: i.rdma_prefix if i.rdma else None, "net1's prefix, with RDMA devices",
          "RoCE takes the GID within this network instead of a link-local one.", _NCCL, False,
          "RoCE may choose a GID that is not the rail's address"),
    _Rule("TP_SOCKET_IFNAME", lambda i: i.rails[0][0], "net1",
          "TensorPipe's (torch.distributed.rpc); takes one name.", "tensorpipe/transport/uv", False,
          "RPC listens there, and its traffic may leave the backend"),
    _Rule("UCX_NET_DEVICES", _ucx, "mlx5_0:1,net1",
          "UCX's (the ucc backend, MPI): the rails' RDMA devices and interfaces alone.",
          "UCX documentation, environment parameters", False,
          "UCX uses those devices, wherever they are connected"),
    _Rule("TORCH_NCCL_ASYNC_ERROR_HANDLING", lambda i: "1", "1",
          "As torchrun sets it: a failed or timed-out NCCL collective ends the process instead of hanging.",
          _TORCHRUN, False, "a failed NCCL collective may hang"),
    _Rule("OMP_NUM_THREADS", _threads, "1, where processes share the machine",
          "As torchrun does: several processes would each start a thread for every CPU.", "torch/distributed/run.py", False,
          "the processes may compete for the CPUs"),
    _Rule("USE_LIBUV", lambda i: "0" if i.libuv is False else None, "0, where torch has no libuv",
          "This torch was built without libuv (Debian's is), and init_process_group would fail asking for it.",
          "torch/distributed/rendezvous.py", False, "init_process_group fails if it asks for libuv"),
    _Rule("PYTHONUNBUFFERED", lambda i: "1", "1",
          "Lines arrive as they are written, and the last ones before a crash are not lost.",
          "Python documentation, command line and environment", False, "lines may arrive late"),
    _Rule("USER", lambda i: i.user, "where the uid has no passwd entry",
          "getpass.getuser(), which torch's compiler calls, fails for a uid without a passwd entry.",
          "Python documentation, getpass", False, "paths that contain the user's name follow it"),
    _Rule("LOGNAME", lambda i: i.user, "where the uid has no passwd entry",
          "getpass.getuser() reads it first.", "Python documentation, getpass", False,
          "paths that contain the user's name follow it"),
    _Rule("HOME", lambda i: i.home, "where HOME is not writable",
          "Caches go there; in a pod with a uid of its own it is / and not writable.", "Kubernetes, Pod Security restricted",
          True),
    _Rule("TORCHINDUCTOR_CACHE_DIR", lambda i: i.cache_dir, "where HOME is not writable",
          "Where torch.compile keeps its results.", "torch/_inductor/runtime/cache_dir_utils.py", False,
          "torch.compile keeps its results there"),
)  # fmt: skip

# Not set by torchnet, but known to undo what it sets.
_HAZARDS = {
    "NCCL_COMM_ID": "it overrides which interface NCCL's bootstrap uses; unset it",
    "NCCL_IB_GID_INDEX": "the right index differs from worker to worker; unset it, NCCL_IB_ADDR_RANGE finds the right one",
}


def build(inputs: EnvironmentInputs) -> tuple[Variable, ...]:
    """The variables of one process, in the table's order; what does not apply to it is left out."""
    pairs = ((rule, rule.value(inputs)) for rule in _RULES)
    return tuple(rule.variable(value) for rule, value in pairs if value is not None)


def explain() -> tuple[Variable, ...]:
    """The whole table for documentation: each ``value`` says what the value is, or when it is set."""
    return tuple(rule.variable(rule.example) for rule in _RULES)


def merge(user_env: Mapping[str, str], variables: tuple[Variable, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The process's environment: ``user_env`` with ``variables``, and warnings (the same for all ranks).

    An owned variable replaces the user's value, and one warning lists these; any other gives way to the user's
    value, with a warning each. Equal values warn of nothing. Neither argument is changed.
    """
    env = dict(user_env)
    warnings = []
    replaced = []
    for variable in variables:
        theirs = user_env.get(variable.name)
        if theirs is None or variable.owned:
            env[variable.name] = variable.value
        if theirs is None or theirs == variable.value or _is_share(variable, theirs):
            continue
        if variable.owned:
            replaced.append(variable.name)
        else:
            consequence = _notation(variable.name, theirs) or variable.consequence
            warnings.append(
                f"{variable.name}={printable(theirs, 80)} is kept as you set it (torchnet would set "
                f"{printable(variable.value, 80)}): {consequence}"
            )
    for name, hazard in _HAZARDS.items():
        if name in user_env:
            warnings.append(f"{name}={printable(user_env[name], 80)} is set: {hazard}")
    if replaced:
        warnings.insert(0, f"{', '.join(replaced)} in your environment: not used, torchnet gives each process its own")
    return env, tuple(warnings)


def covering_prefix(networks: tuple[str, ...]) -> str | None:
    """The smallest network, in CIDR form, that holds all ``networks`` (``address/prefix`` each).

    NCCL_IB_ADDR_RANGE takes one network only. None where there is none: mixed families, or one so large that
    it would hold link-local addresses, too, and so tell nothing.
    """
    parsed = [ipaddress.ip_interface(network).network for network in networks]
    if not parsed or len({network.version for network in parsed}) != 1:
        return None
    cover = parsed[0]
    while not all(int(cover.network_address) <= int(n.network_address) and int(n.broadcast_address) <= int(cover.broadcast_address) for n in parsed):
        cover = cover.supernet()
    local = ipaddress.ip_network("fe80::/10" if cover.version == 6 else "169.254.0.0/16")
    return None if cover.overlaps(local) else str(cover)


def _is_share(variable: Variable, theirs: str) -> bool:
    """The runtime deals out the GPUs that the user made visible: then nothing of the user's was dropped."""
    if variable.name != "CUDA_VISIBLE_DEVICES":
        return False
    return set(variable.value.split(",")) <= set(part.strip() for part in theirs.split(","))


def _notation(name: str, value: str) -> str:
    if name in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "TORCHCOMM_GLOO_INTERFACE"):
        if value[:1] in ("=", "^"):
            return "'=' and '^' are NCCL's notation, here only exact names work: the start fails"
        if not value:
            return "empty counts as unset, so the host name's address is used, which is eth0's"
    return ""
