"""Phase 4: the environment of this worker's processes, from the table in torchnet.network and local facts."""

from __future__ import annotations

import os
import pwd
import re

from torchnet import constants
from torchnet.agent import torch_build
from torchnet.agent.rdma import admitted, devices
from torchnet.agent.rdma_check import backend_devices
from torchnet.agent.spec import AgentSpec
from torchnet.linux import rtnetlink
from torchnet.network.env_vars import EnvironmentInputs, build, covering_prefix, merge
from torchnet.network.interface_selection import Rail
from torchnet.text import listed, printable


class ProcessEnvironment:
    """The processes' environments in one attempt: ``of(local rank, error file)``.

    ``master`` is rank 0's address, ``port`` its store's; ``table`` is the path of the job's table, from which
    torchnet.traffic() names the peers; ``on_rails`` are the RDMA devices on the rails, or those that the user's
    NCCL_IB_HCA names, ``rdma`` those of them that the job can open, ``bypass`` other ones that NCCL may use.
    ``declared`` are the interfaces that the user's NCCL_SOCKET_IFNAME makes backend, too.
    """

    table = ""

    def __init__(
        self, spec: AgentSpec, master: str, rails: tuple[Rail, ...], port: int, attempt: int
    ) -> None:
        self._spec = spec
        self._user = {**os.environ, **spec.env}
        self._home = _home(self._user)
        self._rails = tuple((rail.interface, rail.address) for rail in rails)
        hcas = backend_devices(spec, self._user, self._rails)
        self.on_rails, self.rdma = hcas.all, hcas.usable
        chosen = self._user.get("NCCL_SOCKET_IFNAME", "")
        named: set[str] = set() if spec.loopback else _named(chosen)
        # NCCL_SOCKET_IFNAME=eth0 comes with images: it must not hide that traffic leaves the backend.
        frontends = {"eth0"} if spec.network != "host" else set[str]()
        if named:
            frontends |= {rtnetlink.default_interface(4), rtnetlink.default_interface(6)}
        self.declared = tuple(sorted(named - frontends - {rail.interface for rail in rails}))
        times = self._tuned("GLOO_DEVICES") or ""
        family = 6 if rails[0].family == 6 else 4
        self._fixed = {
            "world_size": spec.world_size,
            "nnodes": spec.nnodes,
            "nproc": spec.nproc_per_node,
            "node_rank": spec.node_rank,
            "run_id": spec.run_id,
            "rails": self._rails,
            "family": family,
            "master_addr": master,
            "master_port": port,
            "restart_count": attempt,
            "max_restarts": spec.max_restarts,
            "hostid": spec.hostid or None,
            "cpus_per_rank": max(1, int(spec.cpus)) if spec.cpus else None,
            "gpus": spec.gpus,
            "hip": "HIP_VISIBLE_DEVICES" in self._user,
            "libuv": None if spec.entry == "program" else torch_build.probe(),
            "rdma": self.rdma,
            "rdma_declared": hcas.named,
            "ib_hca": self._user["NCCL_IB_HCA"] if hcas.exported else None,
            "socket_ifname": chosen or None,
            "socket_declared": bool(self.declared) and not named & frontends,
            "ipv4_interface": None if spec.loopback else _with_ipv4([rail.interface for rail in rails]),
            "rdma_prefix": covering_prefix([f"{r.address}/{r.prefix}" for r in rails]) if self.rdma else None,
            "loopback": spec.loopback,
            "local": spec.runtime == "local",
            "user": None if _known() else "torchnet",
            "home": self._home,
            "cache_dir": f"{self._home}/torchinductor" if self._home else None,
            "rdzv_id": spec.rdzv_id,
            "role": spec.role,
            "signals": spec.signals,
            "gloo_devices": min(8, max(1, int(times))) if re.fullmatch("[0-9]{1,9}", times) else 1,
            "nccl_threads": self._tuned("NCCL_SOCKET_NTHREADS"),
            "nccl_sockets": self._tuned("NCCL_NSOCKS_PERTHREAD"),
        }
        self.bypass = self._bypass()

    def _tuned(self, name: str) -> str | None:
        return self._user.get(constants.TUNE_PREFIX + name)

    def of(self, local_rank: int, error_file: str) -> dict[str, str]:
        env = merge(self._user, build(self._inputs(local_rank, error_file)))[0]
        return {**env, constants.TABLE_VARIABLE: self.table}

    def given(self, local_rank: int) -> dict[str, str]:
        """Return what torchnet adds or changes in the user's environment, without paths of this worker's files."""
        merged = merge(self._user, build(self._inputs(local_rank, "")))[0]
        files = (constants.TABLE_VARIABLE, "TORCHELASTIC_ERROR_FILE")
        return {n: v for n, v in merged.items() if self._user.get(n) != v and n not in files}

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about the user's variables, and about RDMA devices off the rails that NCCL may use."""
        user = dict(self._user)
        if self._spec.own_console:
            user.pop("TORCHELASTIC_ERROR_FILE", None)  # the launcher writes the caller's own
        rails = {interface for interface, _ in self._rails}
        for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            if not self._spec.loopback and _admitted(name, user.get(name, "")) == rails:
                del user[name]  # other words for the same
        found = [*merge(user, build(self._inputs(0, "")))[1]]
        if self.declared:
            found.append(
                f"NCCL_SOCKET_IFNAME={printable(self._user['NCCL_SOCKET_IFNAME'], 80)}: {listed(self.declared, 8)} "
                "counts as backend, too; torchnet has not checked its paths"
            )
        if self.bypass and self._user.keys().isdisjoint(("NCCL_NET", "NCCL_IB_HCA")):
            found.append(
                f"{', '.join(self.bypass)}: not on the card of a rail according to /sys; NCCL may use their RDMA "
                "instead of the backend; set NCCL_IB_HCA to the devices of the backend, or NCCL_NET=Socket to use "
                "only TCP"
            )
        return tuple(found)

    def _bypass(self) -> tuple[str, ...]:
        given = build(self._inputs(0, ""))
        env = merge(self._user, given)[0]
        chosen = env.get("NCCL_IB_HCA", "").strip()
        tcp = env.get("NCCL_NET", "").lower() == "socket" or env.get("NCCL_IB_DISABLE", "0") not in ("", "0")
        if self._spec.loopback or tcp:
            return ()
        return tuple(one for one in devices() if one not in self.rdma and admitted(chosen, one))

    def _inputs(self, local_rank: int, error_file: str) -> EnvironmentInputs:
        rank, fixed = self._spec.ranks[0] + local_rank, self._fixed
        if self._spec.virtual_local_rank:
            fixed = {**fixed, "gpus": self._own_gpu(local_rank)}
            local_rank = 0
        return EnvironmentInputs(rank=rank, local_rank=local_rank, error_file=error_file, **fixed)  # type: ignore[arg-type]

    def _own_gpu(self, local_rank: int) -> tuple[str, ...]:
        """Return the GPU that a process with a virtual local rank sees; () if it has none."""
        visible = self._spec.gpus
        if visible is None:
            named = self._user.get("HIP_VISIBLE_DEVICES") or self._user.get("CUDA_VISIBLE_DEVICES")
            if named is None:
                return (str(local_rank),)
            visible = tuple(filter(None, (part.strip() for part in named.split(","))))
        return visible[local_rank : local_rank + 1]


def _named(chosen: str) -> set[str]:
    """Return the interfaces with addresses that NCCL_SOCKET_IFNAME=``chosen`` names; none if it only excludes some.

    Its notation is that of NCCL_IB_HCA.
    """
    if chosen.strip().startswith("^"):
        return set()
    return _admitted("NCCL_SOCKET_IFNAME", chosen) - {"lo"}


def _admitted(variable: str, chosen: str) -> set[str]:
    """Return the interfaces with addresses that a variable of NCCL or Gloo admits; none if it is empty."""
    if not chosen.strip():
        return set()
    names = chosen.split(",")
    return {
        name
        for name, one in rtnetlink.interfaces().items()
        if one.addresses and (name in names if variable[0] == "G" else admitted(chosen, name))
    }


def _with_ipv4(rails: list[str]) -> str | None:
    """Return an interface with an IPv4 address: a rail's, else the default route's, else any.

    Others may have the same address on each host, such as docker0.
    """
    primary = rtnetlink.default_interface()
    found = [
        name
        for name, interface in rtnetlink.interfaces().items()
        if name != "lo" and any(":" not in address.ip for address in interface.addresses)
    ]
    return min(found, key=lambda name: (name not in rails, name != primary, name), default=None)


def _known() -> bool:
    """Return whether this UID has a name; getpass.getuser(), which TorchInductor calls, fails without one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _home(env: dict[str, str]) -> str | None:
    """Return a writable HOME if the current one is not, as for a UID without an entry in a pod."""
    home = env.get("HOME")
    return None if home and os.access(home, os.W_OK) else "/tmp"
