"""launch/'s scripts under launchers that aren't torchnet: plain Python, torchrun, processes started by hand."""

from __future__ import annotations

import ast
import hashlib
import re
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.jobs import ROOT, Ended, Job, run, script, until
from tests.training import needs_torch

LAUNCH = ROOT / "launch"
TRAIN, LM = LAUNCH / "train.py", LAUNCH / "lm.py"
PYTHON = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
SECONDS = 200  # the machine may be busy with other things
STEPS_PER_EPOCH = 23  # 1,438 images in batches of 64


def by_hand(count: int, file: Path, *arguments: object, checkpoint: str = "") -> list[Ended]:
    """Ranks as torchnet starts them: MASTER_ADDR is a bare IPv6 literal. ``checkpoint``: a path with {rank}."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "::1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with ExitStack() as stack:
        jobs = []
        for rank in map(str, range(count)):
            more = ["--checkpoint", checkpoint.format(rank=rank)] if checkpoint else []
            env = {**common, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": str(count)}
            jobs.append(stack.enter_context(Job(file, *arguments, *more, command=PYTHON, env=env)))
        ended = [job.finish(SECONDS) for job in jobs]
    assert [(one.code, one.stderr) for one in ended] == [(0, "")] * count
    return ended


def accuracy(text: str) -> float:
    """The held-out accuracy in per cent."""
    (found,) = re.findall(r"^held-out accuracy (\d+\.\d) % \(\d+ of 359\)$", text, re.MULTILINE)
    return float(found)


def losses(text: str) -> list[float]:
    return [
        float(number) for number in re.findall(r"^(?:epoch|step) .*: loss (\d+\.\d+), ", text, re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def alone() -> Ended:
    """train.py as one process, with nothing said."""
    return run(TRAIN, command=PYTHON, seconds=SECONDS)


@needs_torch
def test_train_alone(alone: Ended) -> None:
    """Without a launcher, and without a warning."""
    assert (alone.code, alone.stderr) == (0, "")
    assert alone.stdout.startswith("rank 0 of 1: ")
    assert accuracy(alone.stdout) >= 95


@needs_torch
def test_train_under_torchrun() -> None:
    done = run(2, TRAIN, "--compress", "bf16", command=TORCHRUN, seconds=SECONDS)
    assert done.code == 0, done.stderr
    # torchrun's processes write to one pipe: their lines may run together.
    assert sorted(re.findall("rank . of .: gloo on cpu, from", done.stdout)) == [
        f"rank {rank} of 2: gloo on cpu, from" for rank in (0, 1)
    ]
    assert accuracy(done.stdout) >= 95


@needs_torch
def test_any_number_of_ranks_trains_the_same_network(alone: Ended) -> None:
    shared = by_hand(3, TRAIN)
    assert [one.stdout.count("\n") for one in shared[1:]] == [1, 1]  # rank 0 has the word
    assert "rank 1 of 3: gloo on cpu, from ::1 to ::1" in shared[1].stdout
    # A mean over the ranks instead of over the images would be off by more than 0.001.
    assert losses(shared[0].stdout)[:4] == pytest.approx(losses(alone.stdout)[:4], abs=0.0005)
    assert accuracy(shared[0].stdout) >= 95


@needs_torch
def test_a_rank_may_have_no_share_of_a_batch() -> None:
    few = ("--seed", 1, "--batch-size", 2, "--steps", 5)
    alone, shared = run(TRAIN, *few, command=PYTHON, seconds=SECONDS), by_hand(3, TRAIN, *few)
    assert losses(shared[0].stdout) == pytest.approx(losses(alone.stdout), abs=0.001)


@needs_torch
def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """Only rank 0 finds its file: the others have the checkpoint from it."""
    whole = by_hand(2, TRAIN, "--epochs", 4)[0]
    path = f"{tmp_path}/{{rank}}/digits.pt"
    first = by_hand(2, TRAIN, "--epochs", 4, "--steps", 2 * STEPS_PER_EPOCH + 5, checkpoint=path)[0]
    second = by_hand(2, TRAIN, "--epochs", 4, checkpoint=path)[0]
    assert [file.name for file in tmp_path.rglob("*.*")] == ["digits.pt"]
    assert losses(first.stdout)[:2] == losses(whole.stdout)[:2]
    assert re.findall("^epoch . of 4", second.stdout, re.MULTILINE) == ["epoch 3 of 4", "epoch 4 of 4"]
    assert losses(second.stdout) == losses(whole.stdout)[2:]
    assert accuracy(second.stdout) == accuracy(whole.stdout)


@needs_torch
def test_a_killed_training_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "digits.pt"
    arguments = (TRAIN, "--model", "large", "--batch-size", 720, "--epochs", 1000, "--checkpoint", path)

    def changed() -> tuple[int, int]:  # when a file came or went, and when the checkpoint was written to
        return tmp_path.stat().st_mtime_ns, path.stat().st_mtime_ns

    with Job(*arguments, command=PYTHON) as job:
        until(path.exists, "a checkpoint", SECONDS)
        job.wait_for("^epoch 3 ", on="stdout", seconds=SECONDS)
        before = changed()
        until(lambda: changed() != before, "the next one being written", SECONDS)  # it has 160 MB
        job.send(signal.SIGKILL)
    with Job(*arguments, "--steps", 1, command=PYTHON) as job:
        ended = job.finish(SECONDS)
    (epoch,) = re.findall("^epoch (.*) of 1000", ended.stdout, re.MULTILINE)
    assert int(epoch) >= 3


@needs_torch
def test_the_large_model_has_tens_of_megabytes_in_several_buckets() -> None:
    done = by_hand(2, TRAIN, "--model", "large", "--batch-size", 8, "--steps", 3, "--compress", "bf16")
    assert losses(done[0].stdout)
    count = f"import runpy; network = runpy.run_path({str(TRAIN)!r})['network']('large')"
    count += "; print(*(4 * parameter.numel() for parameter in network.parameters()))"
    sizes = [int(size) for size in run("-c", count, command=PYTHON, seconds=SECONDS).stdout.split()]
    assert 50e6 < sum(sizes) < 60e6
    assert max(sizes) < sum(sizes) / 3


@needs_torch
@pytest.mark.parametrize("compress", ["none", "bf16"])
def test_train_needs_no_torchnet(compress: str, tmp_path: Path) -> None:
    """As in an image that has torch alone; there settings of torchnet's change nothing."""
    text = f"""
        import runpy, sys
        sys.modules["torchnet"] = None  # an ImportError for whoever imports it
        sys.argv = ["train.py", "--steps", "2", "--compress", {compress!r}]
        scope = runpy.run_path({str(TRAIN)!r}, run_name="__main__")
        print(scope["tune"])
    """
    settings = {"TORCHNET_TUNE_COMPRESS": "nonsense"}
    done = run(script(tmp_path, text), command=PYTHON, seconds=SECONDS, env=settings)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "None"


@needs_torch
def test_train_ends_the_groups_threads_itself(tmp_path: Path) -> None:
    """Left to the interpreter's end, Gloo's threads abort the process now and then (pytorch#190489)."""
    text = f"""
        import os, runpy, sys
        sys.argv = ["train.py", "--steps", "2"]
        runpy.run_path({str(TRAIN)!r}, run_name="__main__")
        tasks = [open(f"/proc/self/task/{{task}}/comm").read() for task in os.listdir("/proc/self/task")]
        print([task for task in tasks if "gloo" in task])
    """
    done = run(script(tmp_path, text), command=PYTHON, seconds=SECONDS)
    assert done.stdout.splitlines()[-1] == "[]", done


@needs_torch
def test_lm_learns_and_resumes(tmp_path: Path) -> None:
    path = f"{tmp_path}/{{rank}}/lm.pt"
    first = by_hand(2, LM, "--steps", 20, "--batch-size", 4, checkpoint=path)
    assert [len(losses(one.stdout)) for one in first] == [1, 0]
    more = by_hand(3, LM, "--steps", 40, "--batch-size", 4, checkpoint=path)  # the shards are cut anew
    second = more[0]
    assert re.findall("^step .* of 40", second.stdout, re.MULTILINE) == ["step 40 of 40"]
    assert [file.name for file in tmp_path.rglob("*.*")] == ["lm.pt"]

    held_out = [
        float(re.findall(r"^held-out loss (\S+)$", one.stdout, re.MULTILINE)[0]) for one in (first[0], second)
    ]
    assert 6.5 > held_out[0] > held_out[1] > 3  # 7.6 is what knowing nothing costs
    written = second.stdout.partition("held-out")[2].split("\n", 1)[1]
    assert written.startswith("\ndef")
    assert len(written) > 150


@needs_torch
def test_lm_under_torchrun_and_alone() -> None:
    done = run(2, LM, "--steps", 20, "--batch-size", 2, command=TORCHRUN, seconds=SECONDS)
    assert (done.code, len(losses(done.stdout))) == (0, 1), done.stderr
    done = run(LM, "--steps", 20, "--batch-size", 2, command=PYTHON, seconds=SECONDS)
    assert (done.code, done.stderr, len(losses(done.stdout))) == (0, "", 1)


@needs_torch
def test_lm_says_so_where_the_library_has_no_source(tmp_path: Path) -> None:
    """As in an embedded Python, whose library is a zip file."""
    text = f"""
        import os, runpy, sys
        os.__file__ = "/opt/python311.zip/os.pyc"
        sys.argv = ["lm.py"]
        runpy.run_path({str(LM)!r}, run_name="__main__")
    """
    done = run(script(tmp_path, text), command=PYTHON, seconds=SECONDS)
    assert done.code == 1
    assert done.stderr.startswith("lm.py: too little source beside /opt/python311.zip/os.pyc; ")


@pytest.mark.parametrize("file", [TRAIN, LM], ids=lambda file: file.name)
def test_a_script_needs_torch_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 10))
    names = set()
    # What is only tried may be missing.
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Try) and "ImportError" in ast.unparse(node.handlers[0]))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    assert "torch" in names
    assert names - {"torch"} <= sys.stdlib_module_names


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.toml")), ids=lambda file: file.name)
def test_a_job_file_is_valid(file: Path, tmp_path: Path) -> None:
    done = run("--config", file, "--dry-run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert re.search(rf"^script: .*{file.stem}\.py  #", done.stdout, re.MULTILINE)


def test_the_digits_are_those_that_are_described() -> None:
    data = (LAUNCH / "digits.csv.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() in (LAUNCH / "DIGITS.md").read_text()
