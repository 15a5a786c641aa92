"""torchrun's line for one of several hosts, run on two hosts: the lines that `torchnet launch` prints make one job."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.jobs import script
from tests.namespaces import Space, cable, isolated
from torchnet.linux import namespaces

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

ADDRESSES = ("10.7.0.1", "10.7.0.2")
SUM = """
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    total = torch.tensor([dist.get_rank() + 1])
    dist.all_reduce(total)
    print("sum", total.item(), "of", dist.get_world_size())
    dist.destroy_process_group()
"""


def test_the_printed_lines_make_one_job(tmp_path: Path) -> None:
    script(tmp_path, SUM, "train it.py")
    _one_job(tmp_path)


@isolated
def _one_job(folder: Path) -> None:
    far = Space()
    cable("eth1", "eth1", far, addresses=((f"{ADDRESSES[0]}/24", f"{ADDRESSES[1]}/24"),))
    line = f"torchnet launch --nnodes 2 --master-addr {ADDRESSES[0]} --master-port 29500 --node-rank"
    agents = []
    for rank in (0, 1):
        hosts = folder / f"hosts-{rank}"
        hosts.write_text("127.0.0.1 localhost\n")

        def enter(rank: int = rank, hosts: Path = hosts) -> None:
            if rank:
                namespaces.setns(far.descriptor, namespaces.NEWNET)
            namespaces.unshare(namespaces.NEWNS | namespaces.NEWUTS)
            socket.sethostname(f"machine-{rank}")
            namespaces.mount(str(hosts), os.path.realpath("/etc/hosts"), flags=namespaces.MS_BIND)

        def shell(command: str, enter: Callable[[], None] = enter) -> subprocess.Popen[str]:
            search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            return subprocess.Popen(
                ["sh", "-c", command],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": search},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                preexec_fn=enter,  # noqa: PLW1509  # one thread
            )

        refused = shell(f"{line} {rank} 'train it.py'")
        out, err = refused.communicate(timeout=60)
        assert (refused.returncode, out) == (2, ""), err
        (printed,) = [one for one in err.splitlines() if "torchnet agent --" in one]
        agents.append(shell(printed.replace("IFNAME", "eth1").replace("SECRET", "of-this-test")))
    said = [agent.communicate(timeout=90) for agent in agents]
    for rank, (agent, (out, err)) in enumerate(zip(agents, said, strict=True)):
        assert agent.returncode == 0, err
        assert f"[{rank}] sum 3 of 2\n" in out
    assert "torchnet: join: 2/2 joined\n" in said[0][1]
