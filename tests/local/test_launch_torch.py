"""A real all-reduce of torch's, over the backend: on one rail and on two, with both of its stores."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.jobs import lines, receipt, run, script

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

REDUCE = """
    import json, os, socket, warnings
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch, torch.distributed as dist

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    for turn in range(6):  # Gloo takes the rails in turn, one for each collective
        numbers = torch.full((1_000_000,), float(rank + 1))
        dist.all_reduce(numbers)
        assert torch.equal(numbers, torch.full((1_000_000,), size * (size + 1) / 2)), numbers
    print(json.dumps([rank, size, os.environ.get("USE_LIBUV"), os.environ["GLOO_SOCKET_IFNAME"]]), flush=True)
    dist.barrier()
    dist.destroy_process_group()
"""
SENT = 6 * 4_000_000  # bytes of the tensors; a ring of two sends each of them once


@pytest.mark.parametrize(("rails", "libuv"), [(1, "0"), (2, None)])
def test_an_all_reduce_is_all_on_the_backend(tmp_path: Path, rails: int, libuv: str | None) -> None:
    path, reduce = tmp_path / "receipt.json", script(tmp_path, REDUCE, "reduce.py")
    env = {} if libuv is None else {"USE_LIBUV": libuv}
    done = run(f"--rails={rails}", "--min-share=0.99", "--json", path, reduce, env=env, seconds=120)
    assert done.code == 0, done.stderr
    names = [f"net{number + 1}" for number in range(rails)]
    said = [json.loads(lines(done.stdout, rank)[0]) for rank in (0, 1)]
    assert said == [[rank, 2, libuv, ",".join(names)] for rank in (0, 1)]

    found = receipt(path)
    assert (found["backend_share"], found["proof"], found["findings"]) == (1.0, "measured", [])
    assert [rail["interface"] for rail in found["rails"]] == names
    for rail in found["rails"]:
        # Counted at both ends, sent and received.
        assert rail["peer_bytes"] == pytest.approx(4 * SENT / rails, rel=0.02)
    for node in found["nodes"]:
        assert node["interfaces"]["eth0"]["sent_bytes"] < 100_000
        for name in names:
            assert node["interfaces"][name]["sent_bytes"] > SENT / rails
