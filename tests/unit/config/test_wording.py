"""Invalid settings, each kind of error once; the words are in tests/golden/config-errors.txt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import golden
from torchnet.config.job_spec import JobSpec
from torchnet.config.resolution import resolve
from torchnet.config.script_check import check_script
from torchnet.config.validation_errors import SpecError

NODE = "node-1:net1"
FILE = """\
nnodes = 2.5
nodes = 3
run = 1
x = 1
[env]
"1A" = "1"
[output]
min-share = 2
min_share = 2
"""
JOBS: dict[str, dict[str, object]] = {
    "fields": {
        "on": "moon",
        "args": ("a\0b", "c"),
        "nnodes": "1:4",
        "nproc_per_node": "0",
        "run_id": "x" * 64,
        "env": ["A", "1A=1", "B=" + "x" * 200_000],
        "env_file": ["a.env", "b.env"],
        "standalone": "maybe",
        "network.rails": "9",
        "network.rate": "1gbps",
        "run.grace": "soon",
        "output.tee": "7",
        "output.ranks": "3-1",
        "output.min_share": "much",
        "tune": ["bucket=1", "compress", "compress=zip"],
    },
    "no script": {"script": None},
    "signals": {"run.signals": "SIGKILL,USR1"},
    "rates": {"network.rate": "fast", "output.ranks": "x", "run.stdin_rank": "1000000"},
    "combinations": {
        "nnodes": "1",
        "output.min_share": "0.5",
        "module": True,
        "no_python": True,
        "nproc_per_node": "2",
        "output.ranks": "1,2",
        "run.stdin_rank": "2",
        "network.networks": ["ml/net"],
        "network.faults": ["node-1:net1:down", "node-0:net2:down", "node-0:net1:mtu=9500"],
    },
    "standalone": {"standalone": True, "nnodes": "2", "kubernetes.gpus": "1"},
    "loopback": {"network.networks": ["loopback"], "network.rails": "2", "network.rate": "1gbit"},
    "sockets": {"tune.nccl_socket_nthreads": "16", "tune.nccl_nsocks_perthread": "16"},
    **{
        f"fault {fault}": {"network.faults": [f"{NODE}:{fault}"]}
        for fault in (
            *("explode", "mtu", "down=1", "rate=1gbit@3", "mtu=9", "address=x", "wrong-route=x", "loss=0"),
            *("rate=fast", "rate=1kbit"),
        )
    },
}
CLUSTER: dict[str, object] = {"on": "kubernetes", "kubernetes.image": "a:1", "network.networks": ["ml/net"]}
CLUSTER_JOBS: dict[str, dict[str, object]] = {
    "nothing given": {"kubernetes.image": None, "network.networks": None, "network.rails": "1"},
    "fields": {
        "kubernetes.image": "a",
        **{f"kubernetes.{name}": "-1" for name in ("namespace", "gpus", "cpus", "code", "gpu_resource")},
        "kubernetes.volumes": ["nfs:x:/y", "pvc:a", "pvc:a:/b:c", "pvc:a:/", "code=pvc:a:/x"],
        "kubernetes.tolerations": ["a:Never", "=b"],
        "kubernetes.labels": ["a", "a b=c"],
        "kubernetes.annotations": ["torchnet.alt/x=y"],
        "kubernetes.queue": "a" * 254,
        "kubernetes.token_secret": f"{'a' * 64}.b",
        "kubernetes.priority_class": "A",
        "kubernetes.static_ips": [
            "10.0.0.1",
            "10.0.0.1/24,10.0.0.1/24",
            "10.0.0.1-fd00::1/24",
            "10.0.0.1-10.0.0.2",
        ],
    },
    "more": {
        "kubernetes.image": "a:latest",
        "kubernetes.cpus": "4:2",
        "kubernetes.memory": "0",
        "kubernetes.run_as": "root:0",
        "kubernetes.fs_group": "staff",
        "kubernetes.labels": [f"a={'x' * 64}"],
        "kubernetes.static_ips": ["10.0.0.1-10.0.1.2/24", "x/24"],
        "kubernetes.code": "pvc:a/../b",
        "kubernetes.annotations": [f"{key}={'x' * 90_000}" for key in "abc"],
    },
    "networks": {"network.networks": ["a*17", "B"], "output.ranks": "2"},
    "combinations": {
        "kubernetes.detach": True,
        "output.json": "r.json",
        "kubernetes.kind": "jobset",
        "run_id": "1" * 63,
        "kubernetes.multi_network_policy": True,
        "kubernetes.network_policy": "none",
        "env": ["POD_NAME=x"],
        "kubernetes.volumes": ["v=hostpath:/a:/a", "v=pvc:a:/a", "emptydir:/proc/x"],
        "kubernetes.static_ips": ["10.0.0.1-10.0.0.2/24", "10.0.0.2-10.0.0.2/24", "10.0.0.2-10.0.0.3/24"],
        "args": ("\udcff",),
        "nproc_per_node": "gpu",
    },
    "processes": {"nproc_per_node": "cpu"},
}


def message(flags: dict[str, object], config: str | None = None) -> str:
    given = {path: value for path, value in {"script": "train.py", **flags}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        resolve(given, {}, ".", config)
    return str(caught.value)


def test_invalid_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.env").write_text("A\n1A=1\n")
    Path("job.toml").write_text(FILE)
    Path("bad.toml").write_text("nnodes =")
    found = {name: message(flags) for name, flags in JOBS.items()}
    found |= {f"kubernetes: {name}": message({**CLUSTER, **flags}) for name, flags in CLUSTER_JOBS.items()}
    found |= {
        f"--config {name}": message({}, name) for name in ("job.toml", "bad.toml", "job.yaml", "/dev/zero")
    }
    golden.check("config-errors.txt", "\n\n".join(f"-- {name}\n{text}" for name, text in found.items()))


def test_scripts_that_cannot_run(tmp_path: Path) -> None:
    for name, text in {
        "tool.sh": "#!/bin/sh\n",
        "prose.txt": "This is prose.\n",
        "binary": "\0",
        "a.cmd": "#!\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "crlf").write_text("#!/bin/sh\r\n")
    (tmp_path / "plain").write_text("echo\n")
    (tmp_path / "env").write_text("#!/usr/bin/env no-shell\n")
    for name in ("a.cmd", "crlf", "plain", "env"):
        (tmp_path / name).chmod(0o755)
    found = [
        check_script(JobSpec.model_validate({"script": name, **how}), tmp_path)
        for how, names in (
            (
                {},
                (
                    "train.py",
                    "tool.hs",
                    "python3",
                    "folder",
                    "tool.sh",
                    "prose.txt",
                    "binary",
                    "pipe",
                    "loop",
                ),
            ),
            (
                {"no_python": True},
                ("tool.sh", "./tool.sh", "./no", "./", "./a.cmd", "./crlf", "./plain", "./env"),
            ),
            ({"module": True}, ("a.py", "a..b", "no.such", "json.x.y", "package")),
        )
        for name in names
    ]
    text = "\n".join(line for lines in found for line in lines)
    golden.check("script-errors.txt", text.replace(str(tmp_path), "DIR"))
