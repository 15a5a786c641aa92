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
        cpus_per_rank: CPUs per process if local nodes share the machine; None: torchrun's default.
        gpus: IDs of this worker's GPUs for CUDA_VISIBLE_DEVICES; () hides all, None changes nothing.
        hip: whether the user's environment has HIP_VISIBLE_DEVICES.
        libuv: whether this torch was built with it; None: unknown.
        rdma: RDMA devices on the rails (``mlx5_0``); () for plain TCP.
        rdma_declared: whether the user named them, by NCCL_IB_HCA or ``--network rdma:``.
        ib_hca: the user's NCCL_IB_HCA, if it named them.
        socket_ifname: the user's NCCL_SOCKET_IFNAME, if it is set.
        socket_declared: whether it names only interfaces that count as backend.
        ipv4_interface: an interface with an IPv4 address, to tell hosts apart.
        rdma_prefix: the one network (CIDR) that contains the rails' addresses, from :func:`covering_prefix`.
        loopback: there is no backend; all workers share this machine's ``lo``.
        local: the networks are torchnet's own, in namespaces of this machine.
        gloo_devices, nccl_threads, nccl_sockets: the job's "tune" settings; None sets nothing.
        rdzv_id, role, signals: as in `torchnet.agent.spec.AgentSpec`.
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
    hip: bool = False
    libuv: bool | None = None
    rdma: tuple[str, ...] = ()
    rdma_declared: bool = False
    ib_hca: str | None = None
    rdma_prefix: str | None = None
    socket_ifname: str | None = None
    socket_declared: bool = False
    ipv4_interface: str | None = None
    loopback: bool = False
    local: bool = False
    user: str | None = None
    home: str | None = None
    cache_dir: str | None = None
    rdzv_id: str = ""
    role: str = "default"
    signals: tuple[str, ...] = ()
    gloo_devices: int = 1
    nccl_threads: str | None = None
    nccl_sockets: str | None = None

    def __post_init__(self) -> None:
        if not self.rails:
            raise ValueError("rails is empty")
        if canonical(self.master_addr) is None:
            raise ValueError(f"master_addr is not a bare IP literal: {self.master_addr!r}")

    @property
    def interfaces(self) -> str:
        return ",".join(interface for interface, _ in self.rails)

    @property
    def address_family(self) -> str:
        return "AF_INET6" if self.family == 6 else "AF_INET"

    @property
    def hcas(self) -> tuple[str, ...]:
        return () if self.loopback else self.rdma

    @property
    def visible_gpus(self) -> str | None:
        """The GPUs' variable; "-1" hides all, also from HIP, which ignores an empty one."""
        return None if self.gpus is None else ",".join(self.gpus) or "-1"

    @property
    def matched(self) -> bool:
        """Whether the RDMA devices are on the rails' cards: the addresses of others are unknown."""
        return bool(self.hcas) and not self.rdma_declared


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
    if i.nproc > 1:
        return "1"
    return str(max(1, i.cpus_per_rank)) if i.cpus_per_rank is not None else None


_AGENT = "torch/distributed/elastic/agent/server/local_elastic_agent.py"
_INIT = "torch.distributed's documentation, environment variable initialization"
_NCCL = "NCCL's user guide, environment variables"
_NVSHMEM = "NVSHMEM's documentation, environment variables"
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
_LEAVES = "its traffic may leave the backend"
_GID = "RoCE may use a GID that is not the rail's address"

# fmt: off
RULES: tuple[VariableRule, ...] = (
    # Identity of the process.
    _owned("RANK", "0 … WORLD_SIZE-1", lambda i: str(i.rank),
           "Rank of this process in the job.", _INIT),
    _owned("WORLD_SIZE", "nnodes x nproc", lambda i: str(i.world_size),
           "Number of processes of the job.", _INIT),
    _owned("LOCAL_RANK", "0 … LOCAL_WORLD_SIZE-1; 0 with --virtual-local-rank", lambda i: str(i.local_rank),
           "Rank of this process in its worker; scripts use it as the GPU's index.", _AGENT),
    _owned("LOCAL_WORLD_SIZE", "nproc", lambda i: str(i.nproc),
           "Number of processes of this worker.", _AGENT),
    _owned("GROUP_RANK", "0 … nnodes-1", lambda i: str(i.node_rank),
           "Number of this worker; Lightning reads its node rank from it.", _AGENT),
    _owned("GROUP_WORLD_SIZE", "nnodes", lambda i: str(i.nnodes),
           "Number of workers.", _AGENT),
    # torchrun does not set NODE_RANK; scripts that read it then take every node for node 0.
    _owned("NODE_RANK", "0 … nnodes-1", lambda i: str(i.node_rank),
           "Number of this worker, for scripts that read this variable; an old value would be wrong.",
           "composer/utils/dist.py; lightning/fabric/plugins/environments/lightning.py"),
    _owned("ROLE_NAME", "default, or --role", lambda i: i.role,
           "torchrun's name of the role of all processes.", _AGENT),
    _owned("ROLE_RANK", "same as RANK", lambda i: str(i.rank),
           "Rank of this process in its role.", _AGENT),
    _owned("ROLE_WORLD_SIZE", "same as WORLD_SIZE", lambda i: str(i.world_size),
           "Number of processes of the role.", _AGENT),
    _owned("TORCHELASTIC_RUN_ID", "the run's id, or --rdzv-id", lambda i: i.rdzv_id or i.run_id,
           "Lightning and torch.distributed.is_torchelastic_launched() recognise torchrun by it.", _AGENT),
    _owned("TORCHELASTIC_RESTART_COUNT", "0 … max_restarts", lambda i: str(i.restart_count),
           "Number of restarts of all workers so far.", _AGENT),
    _owned("TORCHELASTIC_MAX_RESTARTS", "max_restarts", lambda i: str(i.max_restarts),
           "Maximum number of restarts of all workers.", _AGENT),
    _owned("TORCHELASTIC_ERROR_FILE", "one file per process", lambda i: i.error_file,
           "@record writes the exception to this file; torchnet reads the root cause from it.",
           "torch/distributed/elastic/multiprocessing/errors/__init__.py"),
    VariableRule("TORCHELASTIC_SIGNALS_TO_HANDLE", _SIGNALS, lambda i: ",".join((_SIGNALS, *i.signals)),
         "Same as under torchrun, for scripts that start processes with torch.distributed.elastic.",
         "torch/distributed/launcher/api.py", consequence="processes that the script starts handle other signals"),
    # Rendezvous.
    _owned("MASTER_ADDR", "rank 0's address on net1", lambda i: i.master_addr,
           "Address of rank 0's store on the first rail; a bare literal, since brackets do not resolve and a "
           "name could resolve to eth0's address.", _INIT),
    _owned("MASTER_PORT", "29501 … 29599", lambda i: str(i.master_port),
           "Port of the store; a new one after each restart, since the old one can still be in use.", _INIT),
    _owned("TORCHELASTIC_USE_AGENT_STORE", "False", lambda _: "False",
           "The process of rank 0 hosts the store; with True, all processes would be clients.",
           "torch/distributed/rendezvous.py"),
    VariableRule("USE_LIBUV", "0, if PyTorch lacks libuv", lambda i: "0" if i.libuv is False else None,
         "This PyTorch was built without libuv, such as Debian's; with libuv enabled, it fails.",
         "torch/distributed/rendezvous.py",
         consequence="init_process_group fails if it uses libuv"),
    # Transport of the collectives.
    VariableRule("GLOO_SOCKET_IFNAME", "net1,net2", lambda i: ",".join([i.interfaces] * i.gloo_devices),
         "Gloo's interfaces: exact names, one per rail, repeated for each of tune.gloo_devices; the same number on "
         "every worker. If unset, Gloo uses the address of the host name, which is eth0's.",
         "torch/csrc/distributed/c10d/ProcessGroupGloo.cpp",
         consequence=f"Gloo listens there, and {_LEAVES}"),
    VariableRule("TORCHCOMM_GLOO_INTERFACE", "net1", lambda i: i.rails[0][0],
         "The same for torchcomms, which accepts one name.",
         "torchcomms, comms/torchcomms/gloo", consequence=f"torchcomms' Gloo listens there, and {_LEAVES}"),
    VariableRule("NCCL_SOCKET_IFNAME", "=net1,net2",
         lambda i: i.socket_ifname if i.socket_declared else f"={i.interfaces}",
         "NCCL's interfaces; with '=', since net1 alone is a prefix that also matches net10.",
         _NCCL, consequence=f"NCCL listens there, and {_LEAVES}"),
    VariableRule("NCCL_SOCKET_FAMILY", "AF_INET6", lambda i: i.address_family,
         "Family of the rails' addresses; if unset, NCCL prefers IPv4.",
         _NCCL, consequence="NCCL may find no address of that family on the rails, or one that was not checked"),
    VariableRule("NCCL_SOCKET_NTHREADS", "if tune.nccl_socket_nthreads is set", lambda i: i.nccl_threads,
         "Threads per connection.", _NCCL, consequence="NCCL uses that number"),
    VariableRule("NCCL_NSOCKS_PERTHREAD", "if tune.nccl_nsocks_perthread is set", lambda i: i.nccl_sockets,
         "Sockets per thread.", _NCCL, consequence="NCCL uses that number"),
    VariableRule("NCCL_HOSTID", "one per local node", lambda i: i.hostid,
         "Local nodes share a machine; without it, NCCL uses shared memory instead of net1.",
         _NCCL, consequence="NCCL treats equal ids as the same machine and may bypass the backend"),
    # Unset on a cluster: Socket would switch off InfiniBand and plugins (EFA, GPUDirect-TCPX, SHARP), and IB
    # would switch off the plugins.
    VariableRule("NCCL_NET", "Socket, in local networks", lambda i: "Socket" if i.local and not i.loopback else None,
         "Local networks carry only TCP; an RDMA device of the machine would bypass them.",
         _NCCL, consequence="NCCL uses that transport, wherever its devices are connected"),
    VariableRule("NCCL_CROSS_NIC", "0, with several rails", lambda i: "0" if len(i.rails) > 1 else None,
         "Only the paths from rail i to rail i are checked; NCCL cannot detect isolated rails.",
         _NCCL, consequence="NCCL may use paths between different rails, which were not checked"),
    VariableRule("NCCL_IB_HCA", "=mlx5_0,mlx5_1, with RDMA devices",
         lambda i: (i.ib_hca or f"={','.join(i.hcas)}") if i.hcas else None,
         "The RDMA devices on the rails and those of --network rdma:; with '=', since mlx5_1 alone is a prefix that "
         "also matches mlx5_10.",
         _NCCL, consequence="NCCL uses those devices, wherever they are connected"),
    # NCCL_IB_GID_INDEX is never set: the right index differs between pods.
    VariableRule("NCCL_IB_ADDR_FAMILY", "AF_INET6, with RDMA devices",
         lambda i: i.address_family if i.matched else None,
         "RoCE uses a GID of this family; the default is IPv4.", _NCCL, consequence=_GID),
    VariableRule("NCCL_IB_ADDR_RANGE", "net1's prefix, with RDMA devices",
         lambda i: i.rdma_prefix if i.matched else None,
         "RoCE uses a GID in this network instead of a link-local one.", _NCCL, consequence=_GID),
    # torch copies NCCL's values to NVSHMEM's variables if these are unset, but HCA_LIST does not accept '='
    # (c10d/symm_mem/nvshmem_team_manager, nvshmem_extension.cu). DeepEP uses NVSHMEM.
    VariableRule("NVSHMEM_HCA_LIST", "mlx5_0,mlx5_1, with RDMA devices",
         lambda i: ",".join(i.hcas) if i.hcas else None,
         "The same devices for NVSHMEM (symmetric memory, DeepEP).", _NVSHMEM,
         consequence="NVSHMEM uses those devices, wherever they are connected"),
    VariableRule("NVSHMEM_ENABLE_NIC_PE_MAPPING", "1, with RDMA devices", lambda i: "1" if i.hcas else None,
         "Without it, NVSHMEM ignores NVSHMEM_HCA_LIST.", _NVSHMEM,
         consequence="NVSHMEM may use other devices, wherever they are connected"),
    VariableRule("NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME", "=net1,net2",
         lambda i: f"={i.interfaces}" if i.socket_ifname is None else i.socket_ifname,
         "Interfaces of NVSHMEM's bootstrap, in NCCL's notation; those of your NCCL_SOCKET_IFNAME, if it is set.",
         _NVSHMEM,
         consequence=f"NVSHMEM listens there, and {_LEAVES}"),
    VariableRule("NVSHMEM_BOOTSTRAP_UID_SOCK_FAMILY", "AF_INET6", lambda i: i.address_family,
         "Family of the rails' addresses; if unset, NVSHMEM uses IPv4.", _NVSHMEM,
         consequence="NVSHMEM may find no address of that family on the rails"),
    # TransformerEngine tells hosts apart by this interface's IPv4 address; no bytes use it. If unset, it reads
    # NCCL_SOCKET_IFNAME as one interface's name, and '=net1' is none.
    VariableRule("NVTE_UB_SOCKET_IFNAME", "net1, or another interface with IPv4", lambda i: i.ipv4_interface,
         "TransformerEngine recognises ranks on one host by this interface's IPv4 address.",
         "transformer_engine/pytorch/module/base.py",
         consequence="TransformerEngine may fail, or take several hosts for one"),
    VariableRule("TP_SOCKET_IFNAME", "net1", lambda i: i.rails[0][0],
         "Interface of torch.distributed.rpc, which accepts one name.",
         "torch/csrc/distributed/rpc/tensorpipe_agent.cpp", consequence=f"RPC listens there, and {_LEAVES}"),
    VariableRule("UCX_NET_DEVICES", "mlx5_0:1,net1", _ucx,
         "UCX (the ucc backend, MPI) uses only the RDMA devices and interfaces of the rails.",
         "UCX's documentation, environment parameters",
         consequence="UCX uses those devices, wherever they are connected"),
    VariableRule("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1", lambda _: "1",
         "Same as under torchrun: a failed or timed-out NCCL collective ends the process instead of hanging.",
         _AGENT, consequence="a failed NCCL collective may hang"),
    # Compute resources.
    _owned("CUDA_VISIBLE_DEVICES", "the worker's GPUs",
           lambda i: i.visible_gpus,
           "The worker's share of the visible GPUs; LOCAL_RANK is an index into it.",
           "CUDA's programming guide, environment variables"),
    _owned("HIP_VISIBLE_DEVICES", "the worker's GPUs, if your environment has this variable",
           lambda i: i.visible_gpus if i.hip else None,
           "The same for AMD GPUs; HIP ignores CUDA_VISIBLE_DEVICES if this variable is set.",
           "ROCm's documentation, GPU isolation techniques"),
    VariableRule("OMP_NUM_THREADS", "1, if processes share the node", _threads,
         "Same as under torchrun for several processes of a node; the only process of a local node gets its share of "
         "the CPUs. Otherwise, each would start a thread per CPU.",
         "torch/distributed/run.py", consequence="the processes may compete for the CPUs"),
    VariableRule("PYTHONUNBUFFERED", "1", lambda _: "1",
         "Output appears at once, and the last lines before a crash are not lost.",
         "Python's documentation, command line and environment", consequence="output may be delayed"),
    # User and folders.
    _owned("HOME", "a writable folder, if HOME is not writable", lambda i: i.home,
           "Programs write caches to it; in a restricted pod it is /, which is not writable.",
           "Python's documentation, os.path"),
    VariableRule("USER", "if the uid has no passwd entry", lambda i: i.user,
         "getpass.getuser(), which torch.compile calls, fails for a uid without a passwd entry.",
         "Python's documentation, getpass", consequence="paths with the user's name use it"),
    VariableRule("LOGNAME", "if the uid has no passwd entry", lambda i: i.user,
         "Same as USER; getpass reads it first.",
         "Python's documentation, getpass", consequence="paths with the user's name use it"),
    VariableRule("TORCHINDUCTOR_CACHE_DIR", "if HOME is not writable", lambda i: i.cache_dir,
         "torch.compile caches its results in it.",
         "torch/_inductor/runtime/cache_dir_utils.py", consequence="torch.compile caches its results there"),
)
# fmt: on


__all__ = ["EnvironmentInputs", "Variable", "build", "covering_prefix", "explain", "merge"]

# torchnet does not set these, but they override what it sets.
_HAZARDS = {
    "NCCL_COMM_ID": "it overrides NCCL's bootstrap interface; unset it",
    "NCCL_IB_GID_INDEX": "the correct index can differ between workers; unset it",
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
        value = user_env.get(variable.name)
        if value is None:
            env[variable.name] = variable.value
        elif variable.owned:
            env[variable.name] = variable.value
            if not _is_share(variable, value):
                replaced.append(variable.name)
        elif value != variable.value:
            effect = _notation(variable.name, value) or variable.consequence
            kept.append(
                f"{variable.name}={printable(value, 80)} keeps your value (torchnet would set "
                f"{printable(variable.value, 80)}): {effect}"
            )
    hazards = [
        f"{name}={printable(user_env[name], 80)} is set: {hazard}"
        for name, hazard in _HAZARDS.items()
        if name in user_env
    ]
    if replaced:
        kept.insert(
            0, f"replaced from your environment, since torchnet sets them per process: {', '.join(replaced)}"
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


def _is_share(variable: Variable, value: str) -> bool:
    """Return whether the value is a share of the GPUs that the user made visible, so nothing is overridden."""
    if variable.name not in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        return False
    visible = {part.strip() for part in value.split(",")}
    return variable.value == "-1" or set(variable.value.split(",")) <= visible


def _notation(name: str, value: str) -> str:
    if name not in _EXACT:
        return ""
    if value[:1] in ("=", "^"):
        return (
            "'=' and '^' are NCCL's notation; this variable accepts only exact names, so the start will fail"
        )
    return (
        ""
        if value
        else "an empty value counts as unset, so the address of the host name is used, which is eth0's"
    )
