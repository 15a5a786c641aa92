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
from torchnet.cli import main
from torchnet.cli.torchrun_compat import COMMON_FLAGS, TORCHRUN_FLAGS, UNSUPPORTED
from torchnet.hosts.hosts_runtime import HostsRuntime
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

    for runtime in (LocalRuntime, HostsRuntime, KubernetesRuntime):
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


# torchrun's variables: what it sets for a script, and what torchnet reads, too.
OF_SCRIPTS = (
    *(
        "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_MAX_RESTARTS",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_TIMER_FILE",
    ),
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_SIGNALS_TO_HANDLE"),
)
OF_THE_CALLER = (
    *("TORCHELASTIC_ERROR_FILE", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"),
    "TORCHELASTIC_ETCD_BINARY_PATH",  # of its tests; etcd is refused
)
KUBERNETES = "--on kubernetes --network net --image example.org/image:1"
SLURM = (
    "SLURM_JOB_ID=7 SLURM_STEP_ID=1 SLURM_STEP_NUM_NODES=3 SLURM_STEP_NODELIST=gpu[08-10] "
    "SLURM_STEP_TASKS_PER_NODE=1(x3) SLURM_NODEID=2"
)
# Nodes, node rank and endpoint of a line for one of several hosts.
OF_HOSTS: dict[str, tuple[int, int | None, str]] = {
    "--nnodes 2 --node-rank 1 --master-addr 10.0.0.1": (2, 1, "10.0.0.1:29500"),
    "--nnodes=2 --node_rank=1 --master_addr=10.0.0.1 --master_port 29777": (2, 1, "10.0.0.1:29777"),
    "--nnodes 2 --node-rank 0 --master-addr node-a": (2, 0, "node-a:29500"),
    "--nnodes 2 --node-rank 1": (2, 1, "127.0.0.1:29500"),
    "--nnodes 2 --node-rank 0 --master-port 1234": (2, 0, "127.0.0.1:1234"),
    "--nnodes 2 --master-addr node-a": (2, None, "node-a:29500"),
    "--nnodes 2:2 --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:29401": (2, None, "10.0.0.1:29401"),
    "--nnodes 2 --rdzv-endpoint node-a --master-addr b --master-port 1": (2, None, "node-a:29400"),
    "--nnodes 2 --rdzv-endpoint localhost:29401": (2, None, "localhost:29401"),
    "--nnodes 3 --node-rank 2 --rdzv-endpoint [fd00:7::1]:29401": (3, 2, "[fd00:7::1]:29401"),
    "--nnodes 3 --node-rank 2 --master-addr fd00:7::1": (3, 2, "[fd00:7::1]:29500"),
    "PET_NNODES=2 PET_MASTER_ADDR=10.0.0.1 PET_MASTER_PORT=77 PET_NODE_RANK=0": (2, 0, "10.0.0.1:77"),
    "PET_NNODES=2 --master-addr 10.0.0.1": (2, None, "10.0.0.1:29500"),
    "PET_MASTER_ADDR=10.0.0.1 PET_NODE_RANK=7 --nnodes 4 --node-rank 2": (4, 2, "10.0.0.1:29500"),
    "--on hosts --nnodes 2 --rdzv-endpoint a:1 --network host:ens5": (2, None, "a:1"),
    f"{SLURM} --nnodes 3 --rdzv-endpoint gpu08:29401": (3, None, "gpu08:29401"),
    f"{SLURM} --nproc-per-node 2": (3, None, "gpu08:*"),
    f"{SLURM} --network host:ens5": (3, None, "gpu08:*"),
}


@pytest.mark.parametrize("line", OF_HOSTS, ids=str)
def test_a_line_for_one_of_several_hosts(launch: Launch, jobs: list[Any], line: str) -> None:
    code, err = launch(line)
    assert code == 0, err
    (job,) = jobs
    own = job.host_line
    nnodes, rank, endpoint = OF_HOSTS[line]
    assert (job.on, job.nnodes, own.node_rank) == ("hosts", nnodes, rank)
    assert own.endpoint == endpoint or (endpoint.endswith(":*") and own.endpoint.startswith(endpoint[:-1]))
    assert "PET_" not in err
    assert "not needed" not in err
    slurm = line.startswith("SLURM_")
    assert (own.wished, own.names) == ((2, ("gpu08", "gpu09", "gpu10")) if slurm else (None, ()))
    assert ("one job on the 3 hosts of Slurm step 7.1" in err) == endpoint.endswith(":*")


@pytest.mark.parametrize(
    ("line", "rank", "wished", "endpoint"),
    [
        ("--nnodes 3 --rdzv-backend c10d --rdzv-endpoint a:7 --node-rank 2", None, 2, "a:7"),
        ("--nnodes 2 --rdzv-backend=c10d --rdzv-endpoint a:7 --node-rank 5", None, 5, "a:7"),
        ("PET_RDZV_BACKEND=c10d PET_NODE_RANK=0 --nnodes 2", None, 0, "127.0.0.1:29400"),
        (f"{SLURM} --rdzv-backend c10d --node-rank 0", None, 2, "gpu08:*"),
        ("--nnodes 2 --rdzv-backend static --rdzv-endpoint a:7 --node-rank 1", 1, None, "a:7"),
    ],
)
def test_as_in_torchrun_only_the_static_rendezvous_uses_the_node_rank(
    launch: Launch, jobs: list[Any], line: str, rank: int | None, wished: int | None, endpoint: str
) -> None:
    code, err = launch(line)
    assert code == 0, err
    own = jobs[0].host_line
    assert (own.node_rank, own.wished) == (rank, wished)
    assert own.endpoint.startswith(endpoint.rstrip("*"))


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("--nnodes 2 --rdzv-endpoint a:29400", 1),
        (SLURM, 1),
        ("--on hosts --nnodes 2 --rdzv-endpoint a:29400", 1),
        ("--nnodes 2 --rdzv-endpoint a:29400 --nproc-per-node gpu", "gpu"),
        ("TORCHNET_NPROC_PER_NODE=3 --nnodes 2 --rdzv-endpoint a:29400", 3),
        ("PET_NPROC_PER_NODE=4 PET_NODE_RANK=1 --nnodes 2", 4),
    ],
)
def test_a_host_starts_one_process_unless_the_line_says_otherwise(
    launch: Launch, jobs: list[Any], line: str, count: int | str
) -> None:
    assert launch(f"CUDA_VISIBLE_DEVICES=0,1,2,3 {line}")[0] == 0
    assert jobs[0].nproc_per_node == count


@pytest.mark.parametrize(
    "line",
    ["--rdzv-endpoint a:29400", "--rdzv-endpoint a:29400 --network host:ens5", "--node-rank 0 --nnodes 1"],
)
def test_a_verification_needs_two_hosts(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, jobs: list[Any]
) -> None:
    assert (main(["verify", *line.split()]), jobs) == (2, [])
    assert "add --nnodes N" in capsys.readouterr().err
    monkeypatch.setenv("PET_NNODES", "1")
    monkeypatch.setenv("PET_MASTER_ADDR", "a")
    assert (main(["verify"]), jobs) == (2, [])
    assert "PET_MASTER_ADDR=a: torchnet verify checks" in capsys.readouterr().err


def test_all_hosts_of_a_slurm_step_meet_at_the_same_port(launch: Launch, jobs: list[Any]) -> None:
    for line in (SLURM, SLURM.replace("NODEID=2", "NODEID=0"), SLURM.replace("JOB_ID=7", "JOB_ID=8")):
        assert launch(line)[0] == 0
    ports = [job.host_line.port for job in jobs]
    assert ports[0] == ports[1] != ports[2]


WRONG_LINES = {
    "--node-rank 3": "--node-rank 3 is not below the number of nodes, 1",
    "--nnodes 2 --node-rank 2 --master-addr a": "--nnodes 3",
    "PET_NODE_RANK=1": "PET_NODE_RANK=1 is not below",
    "--nnodes 2 --rdzv-endpoint a:0": "the port 0",
    "--nnodes 2 --rdzv-endpoint a:b": "not a non-negative whole number",
    "--nnodes 2 --rdzv-endpoint a:70000": "70000",
    "--nnodes 2 --rdzv-endpoint :29400": "is not HOST:PORT",
    "--nnodes 2 --rdzv-endpoint [::1": "is not HOST:PORT",
    "--nnodes 2 --rdzv-backend etcd-v2 --rdzv-endpoint a:2379": "does not use etcd",
    "--on hosts --nnodes 2": "--rdzv-endpoint HOST:29400",
    "PET_NNODES=1:3 PET_RDZV_ENDPOINT=10.0.0.1:29400": "elastic",
    "--nnodes 2 --node-rank 1 --rails 2": "--rails",
    "--nnodes 2 --node-rank 1 --network ml/net": "ml/net is not a network of the hosts",
    f"{KUBERNETES} --nnodes 4 --rdzv-endpoint 10.0.0.1:1": "--on kubernetes one launch starts all nodes",
    f"{KUBERNETES} --nnodes 4 --node-rank 1": "--on kubernetes one launch starts all nodes",
    SLURM.replace("1(x3)", "2,8(x2)"): "--nproc-per-node 8",
    SLURM.replace("gpu[08-10]", "gpu[08-09"): "--rdzv-endpoint HOST:29400",
}


def test_on_kubernetes_the_variables_of_this_host_are_ignored(launch: Launch, jobs: list[Any]) -> None:
    variables = "PET_NODE_RANK=1 PET_MASTER_ADDR=a PET_RDZV_ENDPOINT=b:1"  # as Kubeflow sets them
    code, err = launch(f"{variables} {KUBERNETES} --nnodes 4")
    assert code == 0, err
    assert (jobs[0].on, jobs[0].nnodes, jobs[0].host_line) == ("kubernetes", 4, None)
    assert "torchnet ignores PET_* variables" in err
    assert all(one.partition("=")[0] in err for one in variables.split())


@pytest.mark.parametrize(
    "variables", ["PET_MASTER_ADDR=a PET_NODE_RANK=0", SLURM.replace("NODEID=2", "NODEID=0")]
)
def test_a_file_that_names_the_place_overrides_variables_but_no_flags(
    launch: Launch, jobs: list[Any], tmp_path: Path, variables: str
) -> None:
    (tmp_path / "torchnet.toml").write_text('on = "local"\nnnodes = 2\n')
    (tmp_path / "job.toml").write_text('on = "hosts"\nnnodes = 3\n')
    assert launch(variables)[0] == 0
    assert launch(f"{variables} --config job.toml")[0] == 0
    assert launch(f"{variables} --node-rank 1 --master-addr a")[0] == 0
    assert [(job.on, job.nnodes) for job in jobs] == [("local", 2), ("hosts", 3), ("hosts", 2)]


@pytest.mark.parametrize("line", WRONG_LINES, ids=str)
def test_a_line_that_no_host_can_follow_is_refused(launch: Launch, jobs: list[Any], line: str) -> None:
    code, err = launch(line)
    assert (code, jobs) == (2, []), err
    assert WRONG_LINES[line] in err


@pytest.mark.parametrize(
    ("line", "nnodes"),
    [
        ("--nnodes 1 --master-addr localhost --master-port 29500", 1),
        ("--nnodes 1 --rdzv-endpoint localhost:0 --rdzv-backend c10d", 1),
        ("--nnodes=1:1 --rdzv-endpoint localhost:0", 1),
        ("--nnodes 1 --node-rank 0", 1),
        ("--nnodes 2", 2),
        ("--nnodes 2 --rdzv-endpoint ''", 2),
        ("--master-addr 127.0.0.1", 1),
        (SLURM.replace("NUM_NODES=3", "NUM_NODES=1"), 1),
        (f"{SLURM} --standalone", 1),
        (f"{SLURM} --nnodes 1", 1),
        (f"{SLURM} --on local", 1),
        ("SLURM_NODEID=0 SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=2", 1),
        ("", 2),
        ("--rate 1gbit", 2),
        ("--max-restarts 1", 1),
        ("--role trainer", 1),
        ("--tee 3 --nnodes 3", 3),
        ("PET_MAX_RESTARTS=1", 1),
        ("SLURM_JOB_ID=7", 1),
        ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT=9", 1),
        ("TORCHELASTIC_HEALTH_CHECK_PORT=8080", 1),
        ("SLURM_JOBID=7", 1),
        ("CUDA_VISIBLE_DEVICES=0", 1),
        ("CUDA_VISIBLE_DEVICES=0,1 TORCHNET_NNODES=2", 2),
        ("--standalone", 1),
        ("--standalone --node-rank 1 --rdzv-endpoint localhost:0", 1),
        ("PET_NNODES=4 --nnodes 1 --master-addr 10.0.0.1", 1),
        ("PET_RDZV_ENDPOINT=10.0.0.1:1 --nnodes 2 --rdzv-endpoint ''", 2),
        ("PET_NNODES=1 PET_MASTER_ADDR=10.0.0.1 PET_NODE_RANK=0 --nnodes 1", 1),
        ("PET_NODE_RANK= PET_MASTER_ADDR= --nnodes 2", 2),
        ("PET_NNODES=3 PET_NPROC_PER_NODE=1", 3),
        ("PET_NNODES=3 --standalone", 1),
        ("PET_STANDALONE=1 PET_NNODES=3", 1),
        ("PET_STANDALONE=1 PET_NODE_RANK=1 PET_MASTER_ADDR=10.0.0.1", 1),
        (f"PET_STANDALONE=1 {SLURM}", 1),
        ("--nnodes 1 --rdzv-backend c10d --rdzv-endpoint localhost:0 --node-rank 1", 1),
    ],
    ids=str,
)
def test_a_line_for_one_host_starts_a_job(launch: Launch, jobs: list[Any], line: str, nnodes: int) -> None:
    code, err = launch(line)
    assert code == 0, err
    assert [(job.on, job.nnodes) for job in jobs] == [("local", nnodes)]


@pytest.mark.parametrize(
    "line",
    [
        "--node-rank one",
        "--node-rank -1",
        "PET_NODE_RANK=1.5",
        "PET_NNODES=all --master-addr 10.0.0.1",
        "--shutdown-timeout 5min",
        "PET_SHUTDOWN_TIMEOUT=5min",
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


@pytest.mark.parametrize(
    ("flag", "local", "hosts"),
    [
        ("--local-addr 10.0.0.9", "is not needed", "--network host:NETWORK/LENGTH chooses it"),
        ("--rdzv-conf is_host=1", "--start-timeout", "the endpoint's address is node 0 (is_host)"),
    ],
)
def test_what_a_flag_without_effect_would_do_on_several_hosts(
    launch: Launch, flag: str, local: str, hosts: str
) -> None:
    assert f"{flag.split(maxsplit=1)[0]} " in (err := launch(f"--nnodes 1 {flag}")[1])
    assert local in err
    err = launch(f"--nnodes 2 --rdzv-endpoint a:1 {flag}")[1]
    assert f"{flag.split(maxsplit=1)[0]} has no effect in torchnet: " in err
    assert hosts in err


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
    assert "as torchrun without this flag" in flag.notice("local")
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
        ("--nnodes 3", "torchnet: --nnodes 3: all nodes on this machine\n"),
        (
            "CUDA_VISIBLE_DEVICES=0,1,2,3 --nnodes 2",
            "torchnet: --nnodes 2: all nodes on this machine, 2 processes each, one per GPU ",
        ),
        ("CUDA_VISIBLE_DEVICES=0,1 --nnodes 2", "torchnet: --nnodes 2: all nodes on this machine\n"),
        (
            "CUDA_VISIBLE_DEVICES=0,1,2,3 --nnodes 2 --nproc-per-node 1",
            "torchnet: --nnodes 2: all nodes on this machine\n",
        ),
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


def test_what_a_torchrun_flag_set_has_it_as_its_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["launch", "--dry-run", "--shutdown-timeout", "99999999", "train.py"]) == 2
    assert "(from --shutdown-timeout)" in capsys.readouterr().err
    monkeypatch.setenv("PET_SHUTDOWN_TIMEOUT", "99999999")
    assert main(["launch", "--dry-run", "train.py"]) == 2
    assert "(from PET_SHUTDOWN_TIMEOUT)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "environ", "fields", "warned"),
    [
        ("", {"PET_MAX_RESTARTS": "1"}, {"run.max_restarts": 1}, ""),
        (
            "",
            {"PET_NNODES": "1", "PET_MODULE": "1", "PET_MASTER_PORT": "7", "PET_RDZV_ID": "x"},
            {"nnodes": 1, "module": True, "run_id": "x"},
            "PET_MASTER_PORT",
        ),
        ("--nnodes 2", {"PET_NNODES": "1", "PET_ROLE": "r"}, {"nnodes": 2, "role": "r"}, ""),
        ("", {"PET_NNODES": "1", "TORCHNET_NNODES": "3"}, {"nnodes": 3}, ""),
        (
            "--role r --tee 0",
            {"PET_ROLE": "r", "PET_TEE": "3", "PET_STANDALONE": "0"},
            {"output.tee": "0"},
            "",
        ),
        ("", {"PET_SHUTDOWN_TIMEOUT": "40"}, {"run.grace": 40}, ""),
        ("--shutdown-timeout 5", {"PET_SHUTDOWN_TIMEOUT": "40"}, {"run.grace": 5}, ""),
        ("--grace 6", {"PET_SHUTDOWN_TIMEOUT": "40"}, {"run.grace": 6}, ""),
        ("", {"PET_SHUTDOWN_TIMEOUT": "40", "TORCHNET_GRACE": "7"}, {"run.grace": 7}, ""),
        ("", {"PET_FOOD": "cat", "PET_TEE": ""}, {"output.tee": "0"}, ""),
        (
            "--no-python",
            {"PET_NO_PYTHON": "0", "PET_LOG_DIR": "logs"},
            {"no_python": True, "output.log_dir": "logs"},
            "",
        ),
    ],
)
def test_torchruns_variables_count_as_its_flags_do(
    dry: Dry, line: str, environ: dict[str, str], fields: dict[str, Any], warned: str
) -> None:
    job, lines = dry(line, **environ)
    for path, value in fields.items():
        table, _, name = path.rpartition(".")
        assert (job[table] if table else job)[name] == value, path
    found = [one for one in lines if "PET_" in one]
    assert [one.endswith(f"ignores PET_* variables: {warned}") for one in found] == ([True] if warned else [])


def test_each_flag_and_variable_of_the_installed_torchrun_is_known() -> None:
    run = pytest.importorskip("torch.distributed.run")
    flags = {
        option
        for action in run.get_args_parser()._actions
        for option in action.option_strings
        if option.startswith("--") and "_" not in option
    }
    # The shell completion of torchrun itself; torchnet has its own.
    ours = {*COMMON_FLAGS, *(one.flag for one in TORCHRUN_FLAGS), "--help", "--print-completion"}
    assert flags - ours == set()
    folder = Path(run.__file__).parent
    sources = [folder / "run.py", *(folder / "elastic").rglob("*.py")]
    read = {
        name
        for path in sources
        for name in re.findall(r"\bTORCH_?ELASTIC_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert read - {*UNSUPPORTED, *OF_SCRIPTS, *OF_THE_CALLER} == set()


@pytest.mark.parametrize(
    ("variable", "warned"),
    [
        ("TORCHELASTIC_ENABLE_FILE_TIMER=1", True),
        ("TORCHELASTIC_ENABLE_FILE_TIMER=0", False),  # as without it
        ("TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT=60", True),
    ],
)
def test_variables_without_effect(launch: Launch, variable: str, warned: bool) -> None:
    code, err = launch(f"{variable} --nnodes 1")
    assert code == 0
    assert (f"{variable.partition('=')[0]} has no effect" in err) == warned
