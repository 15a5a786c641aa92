"""torchnet.init() wherever a script may run: alone, in another's group, under torchrun; and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.training import BEGIN, CLEAN, needs_torch, run

pytestmark = needs_torch


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
