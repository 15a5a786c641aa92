"""The launcher's side on a machine that is no Linux: nothing of a worker's is loaded, and a job is rendered there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
# What a Mac has not, and what needs no import here: importing one of them fails.
ABSENT = ("torch", "pyroute2", "torchnet.linux", "numpy")
LINUX = (
    *("prctl", "setns", "unshare", "memfd_create", "pidfd_open"),
    *("sched_getaffinity", "sched_setaffinity", "eventfd", "posix_fadvise"),
)
PRELUDE = f"""
import importlib.abc, importlib.machinery, os, signal, socket, sys
class Broken(importlib.abc.Loader):
    def create_module(self, spec): return None
    def exec_module(self, module): raise ImportError(f"{{module.__name__}} cannot be imported here")
class Absent(importlib.abc.MetaPathFinder):  # installed, as its files travel, but of no use
    def find_spec(self, name, path, target=None):
        if any(name == one or name.startswith(one + ".") for one in {ABSENT!r}):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None: spec.loader = Broken()
            return spec
sys.meta_path.insert(0, Absent())
for name in {LINUX!r}:
    if hasattr(os, name): delattr(os, name)
for name in ("AF_NETLINK", "SO_BINDTODEVICE", "SO_PEERCRED", "SCM_CREDENTIALS"):
    if hasattr(socket, name): delattr(socket, name)
for name in ("SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT"):
    if hasattr(signal, name): delattr(signal, name)
"""


def elsewhere(code: str, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHNET_")}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(cwd / "xdg")} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_prelude_takes_away_what_it_says(tmp_path: Path) -> None:
    for name in ("torchnet.linux.rtnetlink", "pyroute2"):
        ran = elsewhere(f"import {name}", cwd=tmp_path)
        assert ran.returncode == 1
        assert "cannot be imported here" in ran.stderr


def test_every_module_of_the_runtime_loads(tmp_path: Path) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "torchnet" / "k8s").rglob("*.py"))
        if (path.parent / "__init__.py").exists() and path.stem != "__init__"
    ]
    assert len(names) > 40
    code = (
        "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\nimport kubernetes.client"
    )
    ran = elsewhere(code, *names, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_a_dry_run_renders_there(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')\n")
    words = [
        "launch",
        "--on",
        "kubernetes",
        "-n",
        "ml",
        "--image",
        "registry.example.org/pytorch:1",
        "--network",
    ]
    words += [
        "ml/backend-network",
        "--nnodes",
        "3",
        "--run-id",
        "there",
        "--dry-run",
        "-o",
        "json",
        "train.py",
    ]
    code = "from torchnet.cli import main\nsys.exit(main(sys.argv[1:]))"
    ran = elsewhere(code, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert {"Job", "ConfigMap"} <= {one["kind"] for one in json.loads(ran.stdout)["items"]}


def test_a_launch_gets_as_far_as_the_network_there(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')\n")
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    words = ["launch", "--on", "kubernetes", "--image", "registry.example.org/pytorch:1"]
    words += ["--network", "ml/backend-network", "train.py"]
    code = "from torchnet.k8s.client import api_client as door\n"
    code += "door.ApiClient.__init__.__kwdefaults__['patience'] = 0.5\n"
    code += "from torchnet.cli import main\nsys.exit(main(sys.argv[1:]))"
    ran = elsewhere(code, *words, cwd=tmp_path, KUBECONFIG=str(tmp_path / "config"))
    assert ran.returncode == 3, ran.stderr
    assert "no response from https://127.0.0.1:9 (context 'c')" in ran.stderr
    assert "Traceback" not in ran.stderr
