"""Pure parts of the local runtime: names, GPUs' shares, numbers of users."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.errors import UsageError
from torchnet.launcher import gpus
from torchnet.launcher.run_name import run_name
from torchnet.linux import namespaces
from torchnet.local.supervisor_process import write_id_maps

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@settings(deadline=None)
@given(st.text())
def test_a_run_name_is_a_dns_label(script: str) -> None:
    assert LABEL.fullmatch(run_name(script, "7f3a2b"))


def test_run_names_people_recognise() -> None:
    assert run_name("/a/b c/Train_v2.py", "7f") == "train-v2-7f"
    assert run_name("torch.distributed.run", "7f") == "torch-distributed-7f"
    assert run_name("é.py", "7f") == "run-7f"
    assert run_name("x" * 39 + "--y.py", "7f") == "x" * 39 + "-7f"


GPUS = ("0", "1", "2", "3", "4")


def test_each_nodes_share_of_the_gpus() -> None:
    assert gpus.share(2, None, GPUS, 8) == gpus.Shares(2, (("0", "1"), ("2", "3")))
    assert gpus.share(2, "gpu", GPUS, 8).nproc == gpus.share(2, "auto", GPUS, 8).nproc == 2
    assert gpus.share(2, 1, GPUS, 8).gpus == (("0",), ("1",))
    assert gpus.share(1, 2, GPUS, 8) == gpus.Shares(2, None), "as under torchrun, one node sees all of them"
    assert gpus.share(1, None, GPUS, 8) == gpus.Shares(5, None)
    assert gpus.share(1, "cpu", GPUS, 8) == gpus.Shares(8, None)
    assert gpus.share(2, "cpu", GPUS, 8) == gpus.Shares(4, ((), ()))
    assert gpus.share(16, "cpu", (), 8) == gpus.Shares(1, None)
    assert gpus.share(2, "auto", (), 9) == gpus.Shares(4, None)
    assert gpus.share(2, None, (), 8) == gpus.Shares(1, None)
    assert gpus.share(2, 7, (), 8) == gpus.Shares(7, None)
    few = gpus.share(6, None, GPUS, 8)
    assert (few.nproc, few.gpus) == (1, ((),) * 6)
    assert "5 GPUs for 6 nodes: running on the CPU" in few.note
    assert gpus.share(6, "auto", GPUS, 8).note == few.note


def test_more_processes_than_gpus_are_refused_with_numbers_that_work() -> None:
    with pytest.raises(
        UsageError, match="2 nodes × 4 processes = 8, but there are only 5 visible GPUs"
    ) as caught:
        gpus.share(2, 4, GPUS, 8)
    assert caught.value.fix.startswith("--nnodes 2 --nproc-per-node 2")
    shared = gpus.share(1, 7, GPUS, 8)
    assert (shared.nproc, shared.gpus) == (7, None)
    assert "7 processes share 5 visible GPUs" in shared.note
    with pytest.raises(UsageError, match="--nproc-per-node gpu: 5 GPUs for 6 nodes"):
        gpus.share(6, "gpu", GPUS, 8)
    with pytest.raises(UsageError, match="0 GPUs for 2 nodes"):
        gpus.share(2, "gpu", (), 8)


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(1, 20), st.integers(1, 20))
def test_the_numbers_that_are_proposed_work(nnodes: int, asked: int, count: int) -> None:
    machine = tuple(map(str, range(count)))
    try:
        shares = gpus.share(nnodes, asked, machine, 8)
    except UsageError as error:
        found = re.match(r"--nnodes (\d+) --nproc-per-node (\d+)", error.fix)
        assert found
        nnodes = int(found[1])
        shares = gpus.share(nnodes, int(found[2]), machine, 8)
    if nnodes == 1:
        assert shares.gpus is None, "it sees all of them"
        return
    assert shares.gpus is not None
    given_out = [gpu for node in shares.gpus for gpu in node]
    assert len(given_out) == len(set(given_out)) == len(shares.gpus) * shares.nproc
    assert set(given_out) <= set(machine)


def files(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def test_visible_gpus(tmp_path: Path) -> None:
    names = ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null", "dxg")
    root = files(tmp_path, *(f"dev/{name}" for name in names))
    assert gpus.visible({}, root) == ("0", "1", "2")
    assert gpus.visible({}, str(tmp_path / "none")) == ()
    named = {"": (), "-1": (), "2": ("2",), "3, 1": ("3", "1"), "GPU-8f,MIG-2": ("GPU-8f", "MIG-2")}
    for text, found in {**named, "0,-1,1": ("0",), "0,,1": ("0",)}.items():
        for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            if text or variable.startswith("CUDA"):
                assert gpus.visible({variable: text}, root) == found
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": ""}, root) == ("1",)
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "3"}, root) == ("3",)


def test_visible_gpus_of_amd_and_under_wsl2(tmp_path: Path) -> None:
    root = files(tmp_path / "amd", "dev/kfd", "dev/dri/renderD128", "dev/dri/renderD129")
    # A CPU, two GPUs of this container, one of another, and one that the kernel hides.
    for number, minor in enumerate(("0", "128", "129", "130", None)):
        folder = tmp_path / "amd/sys/class/kfd/kfd/topology/nodes" / str(number)
        folder.mkdir(parents=True)
        if minor is not None:
            (folder / "properties").write_text(f"simd_count 8\ndrm_render_minor {minor}\nhive_id 0\n")
    assert gpus.visible({}, root) == ("0", "1")
    assert gpus.visible({"ROCR_VISIBLE_DEVICES": "1"}, root) == ("0",)
    assert gpus.visible({}, files(tmp_path / "wsl", "dev/dxg")) == ()  # a GPU without CUDA
    assert gpus.visible({}, files(tmp_path / "wsl", "usr/lib/wsl/lib/libcuda.so.1")) == ("0",)


def test_numbers_are_mapped_one_to_one_for_root_and_one_alone_for_others() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        namespaces.unshare(namespaces.NEWUSER)
        os.write(write, b"x")
        os.execvp("sleep", ["sleep", "30"])
    try:
        os.read(read, 1)
        write_id_maps(pid)
        uids = Path(f"/proc/{pid}/uid_map").read_text().split()
        own = Path("/proc/self/uid_map").read_text().split()
        if os.geteuid() == 0:
            assert uids == [own[0], own[0], own[2]]
        else:
            assert uids == [str(os.geteuid()), str(os.geteuid()), "1"]
            assert Path(f"/proc/{pid}/setgroups").read_text() == "deny\n"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
