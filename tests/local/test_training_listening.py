"""torchnet.init() opens no port but on the backend, or on loopback where there is none."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.training import free_port, needs_torch, ranks, run

pytestmark = needs_torch

# net1 and eth0 as in a worker, without anything else: a namespace of its own.
WORKER = """
ip link set lo up
ip link add eth0 type veth peer name far0; ip link add net1 type veth peer name far1
for i in eth0 far0 net1 far1; do ip link set $i up; done
ip address add 172.30.0.2/16 dev eth0
ip address add fcbb:0:800:ffff::a/64 dev net1 nodad
exec "$@"
"""


def test_a_single_process_listens_on_loopback_alone() -> None:
    run("""
    with torchnet.init() as context:
        assert (context.rank, context.world_size, context.local_rank, context.local_world_size) == (0, 1, 0, 1)
        if not torch.cuda.is_available():
            assert (context.device, context.backend) == (torch.device("cpu"), "gloo")
        tensor = torch.ones(3, device=context.device)
        dist.all_reduce(tensor)
        assert tensor.tolist() == [1, 1, 1]
        dist.new_group([0])
        assert {address for address, _ in listening()} <= {"127.0.0.1", "::1"}, listening()
    assert not dist.is_initialized()
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    context.close()
    with torchnet.init(timeout=60):
        dist.barrier()
    """)


@pytest.mark.parametrize("libuv", ["1", "0"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_the_store_listens_on_its_address_alone(address: str, libuv: str) -> None:
    outputs = ranks(
        """
        context = torchnet.init("gloo", timeout=60)
        port = int(os.environ["MASTER_PORT"])
        tensor = torch.full((4,), context.rank + 1.0)
        dist.all_reduce(tensor)
        assert tensor.tolist() == [3.0] * 4
        if context.rank == 0:
            assert len([a for a, p in listening() if p == port]) == 1, listening()
            own = {"127.0.0.1", "::1", "127.0.0.2"}
            # The control: the address itself answers.
            assert len([a for a in own if reached(a, port)]) == 1, [a for a in own if reached(a, port)]
        dist.barrier()
        # A second group of the same processes finds the store again.
        context.close()
        with torchnet.init(timeout=60) as again:
            dist.all_reduce(tensor)
            assert tensor.tolist() == [6.0] * 4
        print(context.rank, context.local_rank, context.node_rank, context.device)
        """,
        MASTER_ADDR=address,
        MASTER_PORT=free_port(),
        USE_LIBUV=libuv,
    )
    if not outputs[0].endswith("cuda:0\n"):
        assert outputs == ["0 0 0 cpu\n", "1 1 0 cpu\n"]


def test_a_single_process_is_closed_on_eth0_though_its_name_leads_there(tmp_path: Path) -> None:
    needs.networks()
    needs.program("ip")
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n172.30.0.2 {socket.gethostname()}\n")
    script = """
    if torchnet.init("gloo").world_size == 1:
        assert {address for address, _ in listening()} <= {"127.0.0.1", "::1"}, listening()
    dist.destroy_process_group()
    # Gloo's own way, or the lines above would prove nothing.
    del os.environ["GLOO_SOCKET_IFNAME"]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert "172.30.0.2" in {address for address, _ in listening()}, listening()
    """
    steps = f"mount --bind '{tmp_path}/hosts' /etc/hosts\n{WORKER}"
    run(script, command=("unshare", "-Urnm", "sh", "-ec", steps, "sh", sys.executable))


def test_the_store_is_on_net1_and_closed_on_eth0() -> None:
    needs.networks()
    needs.program("ip")
    env = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "fcbb:0:800:ffff::a", "MASTER_PORT": "29501"}
    script = """
    with torchnet.init("gloo", timeout=60):
        assert [a for a, p in listening() if p == 29501] == ["fcbb:0:800:ffff::a"], listening()
        assert reached("fcbb:0:800:ffff::a", 29501)
        assert not reached("172.30.0.2", 29501)
        assert not reached("127.0.0.1", 29501)
    # torch's own way is open on both, or the lines above would prove nothing.
    server = dist.TCPStore("fcbb:0:800:ffff::a", 29502, 1, True)
    assert reached("172.30.0.2", 29502) and reached("fcbb:0:800:ffff::a", 29502)
    """
    run(script, env=env, command=("unshare", "-Urn", "sh", "-ec", WORKER, "sh", sys.executable))
