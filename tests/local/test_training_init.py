"""torchnet.init() wherever a script may run: alone, under torchrun, with the variables set by hand."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
torch_is_here = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode != 0,
    reason="torch is not installed",
)

# What every script below begins with: the ports that this process listens on, by address.
BEGIN = """
import os, socket, sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch, torch.distributed as dist
import torchnet

def listening():
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            inodes.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with open(f"/proc/self/net/{name}") as file:
            lines = [line.split() for line in file][1:]
        for words in lines:
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                address, port = words[1].split(":")
                raw = b"".join(bytes.fromhex(address[i:i + 8])[::-1] for i in range(0, len(address), 8))
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found

def reached(address, port):
    try:
        socket.create_connection((address, port), 2).close()
        return True
    except ConnectionRefusedError:
        return False
"""
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not re.match(
        "RANK|WORLD_SIZE|LOCAL_|MASTER_|GROUP_|TORCHELASTIC|TORCHNET_|GLOO_|NCCL_|USE_LIBUV", name
    )
} | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(script: str, *, env: dict[str, str] | None = None, command: tuple[str, ...] = ()) -> str:
    process = start(script, env=env, command=command)
    return finish(process)


def start(
    script: str, *, env: dict[str, str] | None = None, command: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    argv = [*(command or (sys.executable,)), "-c", BEGIN + textwrap.dedent(script)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, env={**CLEAN, **(env or {})}, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def ranks(script: str, count: int = 2, **env: str) -> list[str]:
    processes: list[subprocess.Popen[str]] = []
    for rank in range(count):
        own = {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(count),
        }
        processes.append(start(script, env={**own, **env}))
    try:
        return [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


# One process


@torch_is_here
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


@torch_is_here
def test_a_group_that_is_there_is_left_as_it_is() -> None:
    run("""
    first = torchnet.init("gloo")
    with torchnet.init() as second:
        assert second == first
    assert dist.is_initialized()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torchnet.init("nccl") == first
    assert "gloo" in str(caught[0].message) and caught[0].filename == "<string>", caught[0]
    first.close()
    assert not dist.is_initialized()

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with torchnet.init() as other:
        assert (other.rank, other.world_size, other.backend) == (0, 1, "gloo")
    assert dist.is_initialized()
    """)


@torch_is_here
def test_what_cannot_be_is_refused() -> None:
    run("""
    from torchnet.errors import UsageError
    if not torch.cuda.is_available():
        try:
            torchnet.init("nccl")
            raise SystemExit("not refused")
        except UsageError as error:
            assert "rank 0 sees 0 CUDA devices for 1 processes" in str(error), error
    try:
        torchnet.init(store=None)
        raise SystemExit("not refused")
    except UsageError as error:
        assert "store" in str(error), error
    assert not dist.is_initialized()
    os.environ["RANK"] = "0"
    try:
        torchnet.init()
        raise SystemExit("not refused")
    except UsageError as error:
        assert "WORLD_SIZE is not set; MASTER_ADDR is not set; MASTER_PORT is not set" in str(error), error
    """)


# Several


@torch_is_here
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


# net1 and eth0 as in a worker, without anything else: a namespace of its own.
WORKER = """
ip link set lo up
ip link add eth0 type veth peer name far0; ip link add net1 type veth peer name far1
for i in eth0 far0 net1 far1; do ip link set $i up; done
ip address add 172.30.0.2/16 dev eth0
ip address add fcbb:0:800:ffff::a/64 dev net1 nodad
exec "$@"
"""


@torch_is_here
def test_a_single_process_is_closed_on_eth0_though_its_name_leads_there(tmp_path: Path) -> None:
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


@torch_is_here
def test_the_store_is_on_net1_and_closed_on_eth0() -> None:
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


@torch_is_here
def test_under_plain_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = """
    with torchnet.init(timeout=60) as context, torchnet.traffic() as traffic:
        tensor = torch.ones(1_000_000, device=context.device)
        if context.device.type == "cpu":
            dist.all_reduce(tensor)
            dist.barrier()  # the other rank has sent its part, too
            seen = traffic.interfaces["lo"].sent_bytes
            assert seen >= 8_000_000, traffic
            assert {name for peer in traffic.peers.values() for name in peer.interfaces} == {"lo"}, traffic
            assert sum(peer.sent_bytes for peer in traffic.peers.values()) >= 8_000_000, traffic
        assert context.world_size == context.local_world_size == 2
        dist.barrier()
        os.write(1, f"rank {context.rank} done{os.linesep}".encode())
    """
    script.write_text(BEGIN + textwrap.dedent(body))
    argv = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*argv, str(script)], env=CLEAN, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 done", "rank 1 done"]


@torch_is_here
def test_the_ranks_agree_on_cuda() -> None:
    run("""
    import threading
    from torchnet.errors import UsageError
    from torchnet.training.group import _all_have_cuda
    from torchnet.training.world import World

    def ask(having):
        store, said = dist.HashStore(), {}
        def rank(number, cuda):
            world = World(number, len(having), 0, 1, number, "", 0, 0, agent_store=False, libuv=True)
            try:
                said[number] = _all_have_cuda(world, store, cuda, None)
            except UsageError as error:
                said[number] = str(error)
        threads = [threading.Thread(target=rank, args=pair) for pair in enumerate(having)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(20)
        return [said[number] for number in range(len(having))]

    assert ask([0, 0, 0]) == [True] * 3
    assert ask([None, None]) == [False] * 2
    mixed = ask([0, None, 0])
    assert all("only 2 of 3 ranks have a CUDA device each" in text for text in mixed), mixed
    assert "rank 1 sees" in mixed[1], mixed
    """)
