"""An agent whose machine has RDMA devices: what keeps processes from using them is shown before they start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.agents import Log, events, spec
from tests.jobs import script
from tests.namespaces import Space, cable, isolated
from tests.unit.agent.rdma_trees import Tree
from torchnet.agent import agent, etc_hosts
from torchnet.network.address_sources import HostInterfaces


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A card whose port is down below the rail, and another one."""
    monkeypatch.setattr(etc_hosts, "is_private", lambda: False)
    made = Tree(tmp_path / "root")
    made.show(monkeypatch)
    for number, interface in enumerate(("net1", "ens9")):
        made.device(f"mlx5_{number}", interface)
        made.node(f"mlx5_{number}", number)
        made.port(f"mlx5_{number}", "InfiniBand", "1: DOWN")
    return made


def run(folder: Path, name: str, **fields: Any) -> tuple[int, list[str], bool]:
    """Run a worker on net1: its code, what it said of devices, and whether processes started."""
    script(folder, "print('trained')", "script.py")
    told = spec(
        folder, 0, 1, name=name, attachments=(), network="host", runtime="agent", state=str(folder), **fields
    )
    code = agent.run(
        told, HostInterfaces("host:net1", ()), lambda _loop, _worker: Log(folder / f"{name}.events")
    )
    said = [event["text"] for event in events(folder, name) if "mlx5_" in event.get("text", "")]
    return code, said, bool(events(folder, name, "started"))


def test_the_preflight_checks_rdma_devices(tree: Tree, tmp_path: Path) -> None:
    _checks(tree, tmp_path)


@isolated
def _checks(tree: Tree, folder: Path) -> None:
    cable("net1", "net1", Space(), addresses=(("fd00::1/64", "fd00::2/64"),))
    code, said, started = run(folder, "warned")
    assert (code, len(said), started) == (0, 1, True), "NCCL may go on over TCP"
    kinds = [
        one["event"] for one in events(folder, "warned") if one["event"] == "started" or "mlx5_" in str(one)
    ]
    assert kinds[:2] == ["notice", "started"]
    code, said, started = run(folder, "required", devices=("mlx5_1",))
    assert (code, started) == (4, False)
    assert "preflight: required: mlx5_1: no port is ACTIVE (DOWN)" in " ".join(said)
    code, said, started = run(folder, "exported", devices=("mlx5_1",), env={"NCCL_IB_HCA": "mlx5_1"})
    assert (code, started) == (0, True), "the exported variable wins"
    tree.port("mlx5_1")
    code, said, started = run(folder, "mended", devices=("mlx5_1",))
    assert (code, started) == (0, True)
