"""Simulated /sys and /dev of machines with RDMA devices, as the kernel's drivers lay them out."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from torchnet.agent import process_env, rdma, rdma_check

NO_PMA = "N/A (no PMA)"  # i40iw's answer


class Tree:
    """A root folder. A device can be opened from :meth:`node` on."""

    def __init__(self, root: Path) -> None:
        self.path = root
        self.root = str(root)
        (root / "sys/class/infiniband").mkdir(parents=True)
        self.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n")

    def write(self, path: str, text: object) -> Path:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    def device(self, name: str, *interfaces: str, driver: str = "", gids: tuple[str, ...] = ()) -> None:
        folder = self.path / "sys/class/infiniband" / name
        for interface in interfaces:
            (folder / "device/net" / interface).mkdir(parents=True)
        (folder / "device").mkdir(parents=True, exist_ok=True)
        if driver:
            (folder / "device/driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
        (folder / "ports/1/gids/255").mkdir(parents=True)  # one that cannot be read
        for number, gid in enumerate(gids):
            self.write(f"sys/class/infiniband/{name}/ports/1/gids/{number}", gid)

    def port(self, device: str, layer: str = "InfiniBand", state: str = "4: ACTIVE") -> None:
        self.count(device, {"link_layer": layer, "state": state}, "ports/1")

    def node(self, device: str, number: int = 0) -> None:
        """Let processes open a device."""
        self.write(f"sys/class/infiniband_verbs/uverbs{number}/ibdev", device)
        self.write(f"dev/infiniband/uverbs{number}", "")

    def count(self, device: str, counters: Mapping[str, object], place: str = "ports/1/counters") -> None:
        for name, value in counters.items():
            self.write(f"sys/class/infiniband/{device}/{place}/{name}", value)

    def show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the agent see this tree instead of the machine's, in an environment that does not choose devices."""
        for module in (process_env, rdma_check):
            for name in {"on_rails", "devices", "visible"} & vars(module).keys():
                monkeypatch.setattr(module, name, partial(getattr(rdma, name), root=self.root))
        monkeypatch.setattr(rdma_check, "problems", partial(rdma_check.problems, root=self.root))
        monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
        for name in ("NCCL_NET", "NCCL_IB_HCA", "NCCL_IB_DISABLE"):
            monkeypatch.delenv(name, raising=False)

    def above(self, interface: str, *lower: str) -> None:
        for name in lower:
            (self.path / "sys/class/net" / interface / f"lower_{name}").mkdir(parents=True)


HW = "ports/1/hw_counters"
# Driver: (folder of the counters, counters that show 1,000 bytes sent and 2,000 received, counters that do not count).
DRIVERS: dict[str, tuple[str, dict[str, int], dict[str, object]]] = {
    "mlx5": (
        "ports/1/counters",
        {"port_xmit_data": 250, "port_rcv_data": 500},
        {"unicast_xmit_packets": 9, "port_xmit_wait": 7},
    ),
    "bnxt_re": (
        HW,
        {"tx_bytes": 1000, "rx_bytes": 2000},
        {"tx_pkts": 4, "active_qps": 2, "tx_roce_only_bytes": 0},
    ),
    "bnxt_re_p5": (
        HW,
        {"tx_roce_only_bytes": 1000, "rx_roce_only_bytes": 2000},
        {"tx_bytes": 5, "rx_bytes": 5},
    ),
    "irdma": (
        HW,
        {"ip4OutOctets": 300, "ip6OutOctets": 700, "ip4InOctets": 0, "ip6InOctets": 2000},
        {"ip4OutPkts": 7, "OutRdmaWrites": 9},
    ),
    "efa": (
        HW,
        {
            "send_bytes": 100,
            "rdma_write_bytes": 700,
            "rdma_read_resp_bytes": 200,
            "recv_bytes": 500,
            "rdma_read_bytes": 1000,
            "rdma_write_recv_bytes": 500,
        },
        {"tx_bytes": 900, "rx_bytes": 1900, "rx_drops": 3, "retrans_bytes": 50},
    ),
    "efa_5_13": ("hw_counters", {"tx_bytes": 1000, "rx_bytes": 2000}, {"submitted_cmds": 4}),
    "rxe_recent": ("ports/1/counters", {"port_xmit_data": 250, "port_rcv_data": 500}, {}),
}


def add(tree: Tree, driver: str, device: str, base: int = 10_000) -> None:
    """Add a device whose counters stand at ``base``, with what its driver shows besides."""
    place, counters, others = DRIVERS[driver]
    if driver.startswith(("bnxt_re", "irdma")):
        tree.count(device, {"port_xmit_data": NO_PMA, "port_rcv_data": NO_PMA})
    tree.count(device, {**dict.fromkeys(counters, base), **dict.fromkeys(others, base)}, place)


def move(tree: Tree, driver: str, device: str, times: int = 1, base: int = 10_000) -> None:
    """Let the device send 1,000 and receive 2,000 bytes, ``times`` times since ``base``."""
    place, counters, others = DRIVERS[driver]
    moved = {name: base + count * times for name, count in counters.items()}
    tree.count(device, {**moved, **{name: base + int(str(n)) * times for name, n in others.items()}}, place)
