"""torchnet.tune(): DDP as the settings say, in two real processes; what is computed changes only where they say so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, run, script
from tests.training import needs_torch

pytestmark = needs_torch

# Prints what a step of each wrapping left in the gradients, and how it was wrapped.
TRAIN = """
    import json, os, sys, warnings
    import torch, torch.distributed as dist
    from torch import nn
    import torchnet

    def gradients(wrap):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 10))
        parallel = wrap(model)
        for step in range(3):
            torch.manual_seed(10 * step + dist.get_rank())
            parallel.zero_grad()
            parallel(torch.randn(8, 300)).square().mean().backward()
        return parallel, torch.cat([p.grad.flatten() for p in model.parameters()])

    with torchnet.init() as context, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain, wanted = gradients(nn.parallel.DistributedDataParallel)
        tuned, got = gradients(torchnet.tune)
        said, seen = gradients(lambda model: torchnet.tune(model, compress="none", bucket_cap_mb=3))
        inside, there = gradients(lambda m: torchnet.tune(nn.parallel.DistributedDataParallel(m)))
        if context.rank == 0:
            print(json.dumps({
                "kind": type(tuned).__name__,
                "equal": torch.equal(wanted, got),
                "off": ((wanted - got).norm() / wanted.norm()).item(),
                "said": torch.equal(wanted, seen),
                "inside": ((wanted - there).norm() / wanted.norm()).item(),
                "caps": [one.bucket_bytes_cap for one in (plain, tuned, said)],
                "warnings": [str(one.message) for one in caught if "torchnet.tune" in str(one.message)],
                "ifname": os.environ.get("GLOO_SOCKET_IFNAME"),
                "nccl": [os.environ.get(f"NCCL_{n}") for n in ("SOCKET_NTHREADS", "NSOCKS_PERTHREAD")],
            }))
        del plain, tuned, said, inside
"""


def trained(folder: Path, *flags: str, **more: Any) -> dict[str, Any]:
    done = run(*flags, script(folder, TRAIN), seconds=120, **more)
    assert done.code == 0, done.stderr
    (text,) = re.findall(r"\{.*\}", done.stdout)
    found: dict[str, Any] = json.loads(text)
    return found


def test_without_settings_it_is_torch_s_own(tmp_path: Path) -> None:
    found = trained(tmp_path)
    assert (found["kind"], found["equal"], found["said"], found["inside"]) == (
        "DistributedDataParallel", True, True, 0.0,
    )  # fmt: skip
    assert found["caps"][0] == found["caps"][1] == 25 << 20
    assert found["caps"][2] == 3 << 20
    assert (found["ifname"], found["nccl"], found["warnings"]) == ("net1", [None, None], [])


def test_the_settings_of_a_project_reach_the_ranks(tmp_path: Path) -> None:
    (tmp_path / "torchnet.toml").write_text(
        "[tune]\nbucket_cap_mb = 2\ncompress = 'bf16'\ngloo_devices = 2\n"
        "nccl_socket_nthreads = 4\nnccl_nsocks_perthread = 2\n"
    )
    found = trained(tmp_path, "--rails", "2", cwd=tmp_path)
    assert found["caps"] == [25 << 20, 2 << 20, 3 << 20]
    assert (found["ifname"], found["nccl"]) == ("net1,net2,net1,net2", ["4", "2"])
    # Rounded to 8 bits: as far off as that, and no further; compress= goes before the settings.
    assert 1e-5 < found["off"] < 1e-2
    assert 1e-5 < found["inside"] < 1e-2
    assert found["said"]
    assert any("cannot change the buckets" in text for text in found["warnings"])


def test_half_precision_is_taken_as_it_was_said(tmp_path: Path) -> None:
    found = trained(tmp_path, "--tune", "compress=fp16")
    assert 1e-6 < found["off"] < 1e-3
    assert found["caps"][1] == 25 << 20


def test_nonsense_is_refused(tmp_path: Path) -> None:
    body = """
        import torch, torchnet
        with torchnet.init():
            torchnet.tune(torch.nn.Linear(2, 2), **{})
    """
    for variable, fix in (("COMPRESS=int4", "none, bf16 or fp16"), ("BUCKET_CAP_MB=many", "is not a number")):
        done = run("--nnodes", 1, "--env", f"TORCHNET_TUNE_{variable}", script(tmp_path, body), seconds=60)
        assert done.code == 1
        assert fix in done.stderr


def test_train_py_is_tuned_by_a_launch(tmp_path: Path) -> None:
    train = ROOT / "launch" / "train.py"
    receipts = []
    for flags in ((), ("--tune", "compress=bf16")):
        file = tmp_path / "receipt.json"
        done = run(
            *flags, "--json", file, train, "--epochs", 1, "--steps", 8, "--model", "large", seconds=120
        )
        assert done.code == 0, done.stderr
        receipts.append(json.loads(file.read_text())["nodes"][1]["interfaces"]["net1"]["sent_bytes"])
    assert receipts[1] == pytest.approx(receipts[0] / 2, rel=0.1)
