"""torchrun's flags and PET_* variables under ``torchnet launch``: taken, mapped, reported or refused."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from torchnet.agent import command_line as agent_flags
from torchnet.cli import main
from torchnet.cli.torchrun_compat import TORCHRUN_FLAGS
from torchnet.k8s.kubernetes_runtime import KubernetesRuntime
from torchnet.local.local_runtime import LocalRuntime

Launch = Callable[..., tuple[int, str]]
Dry = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that start."""
    started: list[Any] = []

    def start(_runtime: Any, job: Any, *_: Any) -> int:
        started.append(job)
        return 0

    for runtime in (LocalRuntime, KubernetesRuntime):
        monkeypatch.setattr(runtime, "launch", start)
    return started


@pytest.fixture
def launch(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: list[Any]
) -> Launch:
    """Run ``[NAME=VALUE…] FLAGS… train.py``; the exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)")

    def run(line: str) -> tuple[int, str]:
        words = shlex.split(line)
        with pytest.MonkeyPatch.context() as patch:
            while words and re.match("[A-Z_]+=", words[0]):
                patch.setenv(*words.pop(0).split("=", 1))
            code = main(["launch", *words, "train.py", "--lr", "a b"])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def dry(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dry:
    """The job of a line as JSON, and the lines on stderr."""

    def run(line: str, **environ: str) -> tuple[dict[str, Any], list[str]]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            assert main(["launch", "--dry-run", "-o", "json", *shlex.split(line), "x.py"]) == 0
        out, err = capsys.readouterr()
        return json.loads(out)["job"], err.splitlines()

    return run


def agent_line(stderr: str) -> list[str]:
    """The words of the only line for ``torchnet agent`` in an error."""
    (line,) = [line for line in stderr.splitlines() if line.strip().startswith("TORCHNET_TOKEN=")]
    secret, *words = shlex.split(line)
    assert (secret, words[:2]) == ("TORCHNET_TOKEN=SECRET", ["torchnet", "agent"])
    return words[2:]


KUBERNETES = "--on kubernetes --network net --image example.org/image:1"
REFUSED = {
    "--nnodes 2 --node-rank 1 --master-addr 10.0.0.1": ("2", "1", "10.0.0.1"),
    "--nnodes=2 --node_rank=1 --master_addr=10.0.0.1 --master_port 29500": ("2", "1", "10.0.0.1"),
    "--nnodes 2 --node-rank 0 --master-addr 10.0.0.1": ("2", "0", "10.0.0.1"),
    "--nnodes 2 --node-rank 1": ("2", "1", "ADDRESS"),
    "--node-rank 3": ("NNODES", "3", "ADDRESS"),
    "--nnodes 1 --node-rank 1": ("NNODES", "1", "ADDRESS"),
    "--nnodes 2 --master-addr node-a": ("2", "NODE_RANK", "ADDRESS"),
    "--nnodes 2:2 --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:29400": ("2", "NODE_RANK", "10.0.0.1"),
    "--nnodes 2 --rdzv-endpoint localhost:29400": ("2", "NODE_RANK", "ADDRESS"),
    "--nnodes 2 --rdzv-endpoint 127.0.0.1:29400": ("2", "NODE_RANK", "ADDRESS"),
    "--nnodes 3 --node-rank 2 --rdzv-endpoint [fd00:7::1]:29400": ("3", "2", "fd00:7::1"),
    "--nnodes 3 --node-rank 2 --master-addr fd00:7::1": ("3", "2", "fd00:7::1"),
    "PET_NODE_RANK=1": ("NNODES", "1", "ADDRESS"),
    "PET_NNODES=2 PET_MASTER_ADDR=10.0.0.1 PET_NODE_RANK=0": ("2", "0", "10.0.0.1"),
    "PET_NNODES=1:3 PET_RDZV_ENDPOINT=10.0.0.1:29400": ("NNODES", "NODE_RANK", "10.0.0.1"),
    "PET_NNODES=2 --master-addr 10.0.0.1": ("2", "NODE_RANK", "10.0.0.1"),
    "PET_MASTER_ADDR=10.0.0.1 PET_NODE_RANK=1 --nnodes 4": ("4", "1", "10.0.0.1"),
    "PET_NODE_RANK=0 --nnodes 4 --node-rank 2": ("4", "2", "ADDRESS"),
    f"{KUBERNETES} --nnodes 4 --rdzv-endpoint 10.0.0.1:1": ("4", "NODE_RANK", "10.0.0.1"),
    f"PET_NODE_RANK=1 {KUBERNETES} --nnodes 4": ("4", "1", "ADDRESS"),
}


@pytest.mark.parametrize("line", REFUSED, ids=str)
def test_a_line_for_one_of_several_hosts_is_refused(launch: Launch, jobs: list[Any], line: str) -> None:
    code, err = launch(line)
    assert (code, jobs) == (2, []), err
    words = agent_line(err)
    options = agent_flags.parser("torchnet agent").parse_args(
        ["0" if w == "NODE_RANK" else "9" if w == "NNODES" else w for w in words]
    )
    assert options.command == ["train.py", "--lr", "a b"]
    assert (options.address_source, options.nproc_per_node) == ("host:IFNAME", 1)
    given = tuple(words[words.index(flag) + 1] for flag in ("--nnodes", "--node-rank", "--rank0"))
    assert given == REFUSED[line]
    for word in ("SECRET", "IFNAME", *(one for one in given if one.isupper())):
        assert len([one for one in err.splitlines() if one.strip().startswith(f"{word}: ")]) == 1, word


def test_the_error_names_the_flags_and_variables_that_count(launch: Launch) -> None:
    first = launch("PET_NODE_RANK=7 PET_MASTER_ADDR=10.0.0.1 PET_MASTER_PORT=1 --nnodes 2 --node-rank 1")[1]
    causes = first.splitlines()[0].partition(": with torchrun")[0]
    assert causes == "torchnet: --node-rank 1, --nnodes 2, PET_MASTER_ADDR=10.0.0.1"


def test_the_agents_line_has_what_the_job_says(launch: Launch) -> None:
    err = launch(
        "--nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --nproc-per-node 4 --rdzv-id job-7 --max-restarts 3 "
        "--shutdown-timeout 40 --log-dir 'my logs' --measure -m -t 3 --env A=1 "
        "--tune compress=bf16 --tune gloo_devices=2"
    )[1]
    options = agent_flags.parser("torchnet agent").parse_args(agent_line(err))
    assert (options.nproc_per_node, options.run_id, options.max_restarts) == (4, "job-7", 3)
    assert (options.grace, options.log_dir, options.measure, options.entry) == (
        *(40, "my logs", True),
        "module",
    )
    (missing,) = re.findall("torchnet agent does not support (.*)", err)
    assert sorted(missing.split(", ")) == ["--env", "--tune"]


@pytest.mark.parametrize(
    ("line", "count"), [("--nproc-per-node gpu", "NPROC"), ("PET_NPROC_PER_NODE=8", "8")], ids=str
)
def test_the_processes_of_a_host(launch: Launch, line: str, count: str) -> None:
    words = agent_line(launch(f"{line} --nnodes 2 --node-rank 1")[1])
    assert words[words.index("--nproc-per-node") + 1] == count


@pytest.mark.parametrize(
    ("line", "nnodes"),
    [
        ("--nnodes 1 --master-addr localhost --master-port 29500", 1),
        ("--nnodes 1 --rdzv-endpoint localhost:0 --rdzv-backend c10d", 1),
        ("--nnodes=1:1 --rdzv-endpoint localhost:0", 1),
        ("--nnodes 1 --node-rank 0", 1),
        ("--nnodes 2 --node-rank 0", 2),
        ("--nnodes 2", 2),
        ("--nnodes 2 --rdzv-endpoint ''", 2),
        ("--master-addr 127.0.0.1", 1),
        ("", 2),
        ("--rate 1gbit", 2),
        ("--max-restarts 1", 1),
        ("--role trainer", 1),
        ("--tee 3 --nnodes 3", 3),
        ("PET_MAX_RESTARTS=1", 1),
        ("SLURM_JOB_ID=7", 1),
        ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT=9", 1),
        ("CUDA_VISIBLE_DEVICES=0", 1),
        ("CUDA_VISIBLE_DEVICES=0,1 TORCHNET_NNODES=2", 2),
        ("--standalone", 1),
        ("--standalone --node-rank 1 --rdzv-endpoint localhost:0", 1),
        ("PET_NODE_RANK=1 --nnodes 2 --node-rank 0", 2),
        ("PET_NNODES=4 --nnodes 1 --master-addr 10.0.0.1", 1),
        ("PET_RDZV_ENDPOINT=10.0.0.1:1 --nnodes 2 --rdzv-endpoint ''", 2),
        ("PET_NNODES=1 PET_MASTER_ADDR=10.0.0.1 PET_NODE_RANK=0 --nnodes 1", 1),
        ("PET_NODE_RANK= PET_MASTER_ADDR= --nnodes 2", 2),
    ],
    ids=str,
)
def test_a_line_for_one_host_starts_a_job(launch: Launch, jobs: list[Any], line: str, nnodes: int) -> None:
    code, err = launch(line)
    assert code == 0, err
    assert [job.nnodes for job in jobs] == [nnodes]


@pytest.mark.parametrize(
    "line",
    [
        "--node-rank one",
        "--node-rank -1",
        "PET_NODE_RANK=1.5",
        "PET_NNODES=all --master-addr 10.0.0.1",
        "--shutdown-timeout 5min",
        "--signals-to-handle SIGSTOP",
        "--log x",
    ],
)
def test_refused_values(launch: Launch, jobs: list[Any], line: str) -> None:
    code, err = launch(line)
    assert (code, jobs) == (2, [])
    assert line.split(maxsplit=1)[0].replace("_", "-").lstrip("-")[:9] in err.replace("_", "-")


def test_each_flag_says_what_it_means_here(dry: Dry, capsys: pytest.CaptureFixture[str]) -> None:
    lost = set()
    for one in TORCHRUN_FLAGS:
        if not one.reason:
            continue
        lines = dry(one.flag if one.switch else f"{one.flag} 0")[1]
        assert len(lines) == 1
        what = lines[0].removeprefix(f"torchnet: {one.flag} ").partition(": ")[0]
        assert "has no effect" in what
        lost |= set() if "not needed" in what else {one.flag}
    assert {"--numa-binding", "--logs-specs", "--duplicate-stdout-filters"} < lost
    main(["launch", "--help"])
    assert "--rdzv-backend" not in capsys.readouterr().out


def test_like_torchrun_torchnet_binds_no_process_to_cpus_by_default() -> None:
    """LaunchConfig asks this function of torch if there are as many devices as processes, and no --numa-binding."""
    where = find_spec("torch")
    if where is None or where.origin is None:
        pytest.skip("torch is not installed")
    source = ast.parse(Path(where.origin).with_name("_utils_internal.py").read_text())
    name = "get_default_numa_options"
    (function,) = [one for one in source.body if isinstance(one, ast.FunctionDef) and one.name == name]
    defined: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), name, "exec"), defined)
    assert defined[name]() is None
    (flag,) = [one for one in TORCHRUN_FLAGS if one.flag == "--numa-binding"]
    assert "as torchrun without this flag" in flag.notice
    assert name in (ROOT / "docs/torchrun.md").read_text()


def test_shutdown_timeout_is_grace(dry: Dry) -> None:
    job, lines = dry("--shutdown-timeout 40")
    assert (job["run"]["grace"], lines) == (40, [])
    job, lines = dry("", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="50")
    assert (job["run"]["grace"], lines) == (50, [])
    assert dry("", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="50", TORCHNET_GRACE="7")[0]["run"]["grace"] == 7
    assert dry("--grace 6", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="50")[0]["run"]["grace"] == 6
    job, lines = dry("--shutdown-timeout 40 --grace 5", TORCHNET_GRACE="7")
    assert job["run"]["grace"] == 5
    (line,) = lines
    assert "--shutdown-timeout has no effect" in line


@pytest.mark.parametrize(
    ("line", "run"),
    [("100", "100"), ("My_Job", "my-job"), ("__", None), ("100 --run-id a", "a")],
)
def test_rdzv_id_names_the_run(dry: Dry, line: str, run: str | None) -> None:
    """Scripts see it as it is; the run's name, which is a label, follows from it."""
    job, lines = dry(f"--rdzv-id {line}")
    assert (job["rdzv_id"], job["run_id"], lines) == (line.split(maxsplit=1)[0], run, [])


def test_an_rdzv_id_that_cannot_name_a_jobset_does_not_stop_the_launch(
    dry: Dry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from $SLURM_JOB_ID: JobSet makes a Service of the run's name, which cannot begin with a digit."""
    job, lines = dry("--rdzv-id 4711")
    assert (job["run_id"], lines) == ("4711", [])
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    words = "launch --dry-run --on kubernetes --kind jobset --network net --image example.org/image:1"
    assert main([*words.split(), "--rdzv-id", "4711", "train.py"]) == 0
    shown = capsys.readouterr()
    assert "4711" in shown.out, "scripts see it"
    assert "name: 4711" not in shown.out


def test_abbreviations_as_argparse_accepts_them(dry: Dry) -> None:
    job, _ = dry("--redirect=3 --nproc-per=4 --max_r 2 --virt --rate 1gbit")
    assert (job["output"]["redirects"], job["nproc_per_node"], job["run"]["max_restarts"]) == ("3", 4, 2)
    assert (job["virtual_local_rank"], job["network"]["rate"]) == (True, 10**9)


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (
            "",
            "torchnet: no --nnodes: 2 nodes, all on this machine; for a single one, as under torchrun: --nnodes 1",
        ),
        ("--nnodes 3", "torchnet: --nnodes 3: all nodes on this machine"),
        ("CUDA_VISIBLE_DEVICES=0,1", "torchnet: no --nproc-per-node: 2 processes, one per GPU; "),
        ("--nnodes 1", ""),
        ("--standalone", ""),
        ("-q", ""),
        ("TORCHNET_NNODES=2", ""),
    ],
)
def test_the_first_line_says_what_differs_from_torchrun(
    launch: Launch, jobs: list[Any], line: str, first: str
) -> None:
    code, err = launch(line)
    assert (code, len(jobs)) == (0, 1)
    assert err.startswith(first) if first else not err


def test_what_a_torchrun_flag_set_has_it_as_its_origin(dry: Dry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--dry-run", "--shutdown-timeout", "99999999", "train.py"]) == 2
    assert "(from --shutdown-timeout)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "environ", "names", "advice"),
    [
        ("", {"PET_MAX_RESTARTS": "1"}, "PET_MAX_RESTARTS", "--max-restarts 1"),
        (
            "",
            {"PET_NNODES": "1", "PET_MODULE": "1", "PET_MASTER_PORT": "7", "PET_RDZV_ID": "x"},
            "PET_NNODES, PET_MODULE, PET_RDZV_ID, PET_MASTER_PORT",
            "--nnodes 1 --module --rdzv-id x",
        ),
        ("--nnodes 2", {"PET_NNODES": "1", "PET_ROLE": "r"}, "PET_ROLE", "--role r"),
        ("--role r --tee 0", {"PET_ROLE": "r", "PET_TEE": "3", "PET_STANDALONE": "0"}, "", ""),
        ("", {"PET_FOOD": "cat", "PET_TEE": ""}, "", ""),
    ],
)
def test_one_warning_for_torchruns_variables(
    dry: Dry, line: str, environ: dict[str, str], names: str, advice: str
) -> None:
    lines = [one for one in dry(line, **environ)[1] if "PET_" in one]
    end = f": {names}" + (f"; use {advice}" if advice else "")
    assert [line.endswith(end) for line in lines] == ([True] if names else [])
