"""torchnet.tune() in one process: what it refuses, what it takes, and that no failed sum is taken for one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.jobs import ROOT
from tests.training import CLEAN, needs_torch
from torchnet.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = needs_torch

import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.futures import Future  # noqa: E402

from torchnet.training import ddp  # noqa: E402


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("TORCHNET_TUNE_")]:
        monkeypatch.delenv(name)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _bucket(gradients: Tensor) -> Any:
    return SimpleNamespace(buffer=lambda: gradients, index=lambda: 0)


def test_a_sum_that_failed_is_no_gradient(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    future: Future[Any] = Future()
    work = SimpleNamespace(get_future=lambda: future)
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: work)
    gradients = torch.full((8,), 3.0)
    state = ddp._Compressed(None, torch.bfloat16)
    answer = ddp._hook(state, _bucket(gradients))
    future.set_exception(RuntimeError("connection closed by peer"))
    with pytest.raises(RuntimeError, match="connection closed by peer"):
        answer.wait()
    assert torch.equal(gradients, torch.full((8,), 3.0))


def test_a_sum_that_came_is_the_gradient(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(tensor: Tensor, **_: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result([tensor.mul_(4)])
        return SimpleNamespace(get_future=lambda: future)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    gradients = torch.full((8,), 3.0)
    ddp._hook(ddp._Compressed(None, torch.bfloat16), _bucket(gradients)).wait()
    assert torch.equal(gradients, torch.full((8,), 12.0))


@pytest.mark.parametrize("text", ["nan", "inf", "-5", "0", "0.01", "10001", "many"])
def test_buckets_of_no_size_are_refused(group: None, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHNET_TUNE_BUCKET_CAP_MB", text)
    with pytest.raises(UsageError, match=r"BUCKET_CAP_MB='.*' is not a number from 0\.1 to 10000") as caught:
        ddp.tune(nn.Linear(2, 2))
    assert caught.value.fix == "--tune bucket_cap_mb=MIB"


@pytest.mark.parametrize("name", ["FullyShardedDataParallel", "FSDPModule"])
def test_fsdp_has_its_own_way(group: None, name: str) -> None:
    """As fully_shard() makes it: a class of its own between the module's and torch's, here of a part."""
    kind = type("FSDPLinear", (type(name, (), {}), nn.Linear), {})
    with pytest.raises(UsageError, match="FSDP") as caught:
        ddp.tune(nn.Sequential(nn.Linear(2, 2), kind(2, 2)))
    assert "torchnet.tune()" in caught.value.fix


def test_a_real_fsdp_module_is_known(group: None) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this torch has no fully_shard()")
    module = nn.Sequential(nn.Linear(2, 2))
    fsdp.fully_shard(module, mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
    with pytest.raises(UsageError, match="FSDP"):
        ddp.tune(module)


def test_what_torch_compile_made_of_ddp_is_ddp(group: None) -> None:
    """Nothing is compiled before it is called."""
    parallel = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
    compiled = torch.compile(parallel)
    assert ddp.tune(compiled, compress="bf16") is compiled
    parallel.zero_grad()
    parallel(torch.full((1, 3), 1 + 2**-12)).sum().backward()
    assert torch.equal(parallel.module.weight.grad, torch.ones(2, 3))  # rounded on its way


@pytest.mark.parametrize(
    "body", ["raise ImportError('blocked')", "__version__ = '0.0.4'  # as PyPI's torchnet"]
)
@pytest.mark.parametrize("how", ["none", "bf16"])
def test_train_py_runs_where_torchnet_is_none_or_another(tmp_path: Path, body: str, how: str) -> None:
    (tmp_path / "torchnet.py").write_text(f"print('this torchnet')\n{body}\n")
    done = subprocess.run(
        [sys.executable, ROOT / "launch" / "train.py", "--epochs=1", "--steps=1", "--compress", how],
        env={**CLEAN, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("this torchnet\n")
    assert "held-out accuracy" in done.stdout
