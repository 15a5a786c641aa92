"""``torchnet launch``: torchrun's lines, and which words are the script's."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from torchnet.cli import main
from torchnet.cli.torchrun_compat import COMMON_FLAGS, TORCHRUN_FLAGS
from torchnet.config.job_spec import JobSpec
from torchnet.config.settings import FIELDS
from torchnet.local.local_runtime import LocalRuntime

Dry = Callable[..., dict[str, Any]]


@pytest.fixture
def dry(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dry:
    """The job that a command line resolves to, as JSON; in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> dict[str, Any]:
        code = main(["launch", "--dry-run", "-o", "json", *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        document: dict[str, dict[str, Any]] = json.loads(out)
        return document["job"] | {"stderr": err, "origins": document["origins"]}

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        ["--"],
        ["--", "--"],
        ["--nnodes=3", "--nproc_per_node", "2"],
        ["-m", "-o", "json", "--dry-run"],
        ["a b", "", "é", "\n", "-"],
        ["--config", "x.toml", "train.py"],
    ],
    ids=str,
)
def test_all_after_the_script_is_the_scripts(dry: Dry, words: list[str]) -> None:
    job = dry("--nnodes", "4", "train.py", *words)
    assert (job["script"], job["args"], job["nnodes"]) == ("train.py", words, 4)


def test_a_double_dash_may_stand_before_the_script(dry: Dry) -> None:
    job = dry("--nnodes=4", "--", "train.py", "--", "-x")
    assert (job["script"], job["args"]) == ("train.py", ["--", "-x"])


def test_undecodable_arguments_reach_the_script(dry: Dry) -> None:
    assert dry("tr\udcffain.py", "\udcfe")["args"] == ["\udcfe"]


@pytest.mark.parametrize(
    "words",
    [
        ["--nproc-per-node", "2"],
        ["--nproc-per-node=2"],
        ["--nproc_per_node", "2"],
        ["--nproc_per_node=2"],
    ],
    ids=" ".join,
)
def test_both_spellings_of_torchruns_flags(dry: Dry, words: list[str]) -> None:
    assert dry(*words, "train.py")["nproc_per_node"] == 2


def test_every_flag_of_the_table_is_an_option_in_both_spellings(dry: Dry) -> None:
    values = {
        "on": "local",
        "nproc_per_node": "auto",
        "run_id": "a",
        "env": "A=1",
        "network.networks": "loopback",
        "network.rate": "1gbit",
        "network.faults": "node-1:net1:no-carrier@2+3",
        "network.family": "ipv6",
        "network.preflight": "full",
        "run.stall_action": "stop",
        "run.signals": "SIGUSR1",
        "output.ranks": "0-1",
        "tune.compress": "fp16",
    }
    Path("1").write_text("")  # of --env-file; the fixture's folder is the current one
    for field in FIELDS:
        if field.only == "kubernetes":
            continue  # a dry run shows objects there: tests/unit/config/test_k8s_values.py
        for flag in (field.flag, field.flag.replace("-", "_").replace("__", "--", 1), field.short):
            if not flag:
                continue
            value = values.get(field.path, "1")
            words = [flag] if field.switch else [flag, f"{field.key}={value}" if field.keyed else value]
            if field.path == "network.mtu":
                words = [flag, "1500"]
            job = dry(*words, "train.py")
            path = "env.A" if field.path == "env" else field.path
            assert job["origins"][path] == {"layer": "flag", "where": field.flag}, flag


def test_settings_of_a_table_share_a_flag(dry: Dry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key by itself: over its variable, and that over the file."""
    monkeypatch.setenv("TORCHNET_TUNE_COMPRESS", "fp16")
    monkeypatch.setenv("TORCHNET_TUNE_GLOO_DEVICES", "2")
    Path("torchnet.toml").write_text("[tune]\ngloo-devices = 3\nnccl_socket_nthreads = 4\n")
    job = dry("--tune", "bucket-cap-mb=1", "--tune=bucket_cap_mb=2", "--tune", "compress=bf16", "x.py")
    origins = {path: one["where"] for path, one in job["origins"].items()}
    assert {key: (value, origins[f"tune.{key}"]) for key, value in job["tune"].items()} == {
        "bucket_cap_mb": (2.0, "--tune"),
        "compress": ("bf16", "--tune"),
        "gloo_devices": (2, "TORCHNET_TUNE_GLOO_DEVICES"),
        "nccl_socket_nthreads": (4, "torchnet.toml: tune.nccl_socket_nthreads"),
        "nccl_nsocks_perthread": (None, "default"),
    }


@pytest.mark.parametrize("word", ["gpu", "cpu", "auto"])
def test_words_for_the_number_of_processes(dry: Dry, word: str) -> None:
    assert dry("--nproc-per-node", word, "x.py")["nproc_per_node"] == word


def test_a_torchrun_line_as_it_is_written(dry: Dry) -> None:
    line = """
        --nnodes=1 --nproc_per_node=4 --node_rank=0 --master_addr=10.0.0.1 --master_port 29500
        --rdzv_id=1 --rdzv-backend c10d --rdzv_endpoint=h:1 --max_restarts=3 -t 3 -r 0:1,1:3
        --log-dir logs --role trainer --start-method spawn --monitor-interval 5 -m pkg.train --lr 1
    """
    job = dry(*line.split())
    assert (job["nnodes"], job["nproc_per_node"], job["module"], job["script"]) == (1, 4, True, "pkg.train")
    assert job["args"] == ["--lr", "1"]
    assert (job["run"]["max_restarts"], job["run_id"], job["rdzv_id"]) == (3, "1", "1")
    assert job["role"] == "trainer"
    assert (job["output"]["tee"], job["output"]["redirects"], job["output"]["log_dir"]) == (
        "3",
        "0:1,1:3",
        "logs",
    )
    lines = job["stderr"].splitlines()
    named = ("rdzv-backend", "rdzv-endpoint", "node-rank", "master-addr", "master-port")
    for flag in (*named, "monitor-interval", "start-method"):
        assert len([line for line in lines if f"--{flag} is not needed" in line]) == 1
    assert len(lines) == 7


def test_standalone(dry: Dry) -> None:
    job = dry("--standalone", "--nnodes=1", "--nproc_per_node=2", "x.py")
    assert (job["nnodes"], job["standalone"]) == (1, True)
    assert dry("--standalone", "x.py")["nnodes"] == 1


def torchrun_flags() -> set[str]:
    """The flags that PyTorch's own parser declares, read from its source: importing it would take seconds."""
    package = find_spec("torch")
    if package is None or package.origin is None:
        pytest.skip("torch is not installed")
    source = (Path(package.origin).parent / "distributed" / "run.py").read_text()
    flags = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = [word.value for word in node.args if isinstance(word, ast.Constant)]
            flags |= {name for name in names if isinstance(name, str) and name.startswith("-")}
    return flags


def test_every_flag_of_torchruns_is_known() -> None:
    known = {flag for field in FIELDS for flag in (field.flag, field.short)} | {
        one.flag for one in TORCHRUN_FLAGS
    }
    theirs = {flag if flag.count("-") == 1 else flag.replace("_", "-") for flag in torchrun_flags()}
    assert "--nproc-per-node" in theirs
    # Completion is the shell's business with torchnet, and no part of a line that starts a job.
    assert theirs - known == {"--print-completion"}
    long = {flag for flag in theirs if flag.startswith("--")} - {"--print-completion"}
    assert {*COMMON_FLAGS, *(one.flag for one in TORCHRUN_FLAGS)} == long


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[JobSpec]:
    """What the local runtime is asked to launch; it answers with exit code 42."""
    jobs: list[JobSpec] = []

    def launch(_runtime: LocalRuntime, job: JobSpec, _cwd: str) -> int:
        jobs.append(job)
        return 42

    monkeypatch.setattr(LocalRuntime, "launch", launch)
    return jobs


def test_the_runtime_gets_the_job_and_its_code_is_ours(
    weird_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: list[JobSpec]
) -> None:
    monkeypatch.chdir(weird_tmp_path)
    (weird_tmp_path / "a b\n.py").write_text("print(1)")
    assert main(["launch", "--nnodes", "3", "a b\n.py", "--x"]) == 42
    (job,) = launched
    assert (job.nnodes, job.script, job.args) == (3, "a b\n.py", ("--x",))


@pytest.mark.parametrize(
    "words", [["missing.py"], ["."], ["-m", "no_such_module"], ["--no-python", "no-such-command"]], ids=str
)
def test_a_script_that_cannot_run_is_not_launched(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    launched: list[JobSpec],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", *words]) == 2
    assert launched == []
    assert "cannot run the script" in capsys.readouterr().err


def test_a_dry_run_looks_at_no_script_and_launches_nothing(dry: Dry, launched: list[JobSpec]) -> None:
    assert dry("missing.py")["script"] == "missing.py"
    assert launched == []


def test_a_job_file_alone_is_enough(dry: Dry, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('script = "train.py"\nargs = ["--epochs", "1"]\nnnodes = 3\n')
    job = dry("--config", "job.toml")
    assert (job["script"], job["args"], job["nnodes"]) == ("train.py", ["--epochs", "1"], 3)


def test_the_default_form_is_yaml(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "--dry-run", "x.py"]) == 0
    default = capsys.readouterr().out
    assert main(["launch", "--dry-run", "-o", "yaml", "x.py"]) == 0
    assert capsys.readouterr().out == default
    assert default.startswith('"on": local  # default\n')


def test_a_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["launch", "--dry-run", "x.py"]) == 2
    assert "working directory" in capsys.readouterr().err
