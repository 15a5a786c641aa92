"""Scripts that nobody here wrote, unmodified, under torchrun and three times under torchnet: not a part of CI.

    python -m tests.foreign_scripts FOLDER [PART OF A NAME …]

FOLDER holds clones of pytorch/pytorch, pytorch/ignite, pytorch/PiPPy and facebookresearch/param, by the repositories'
names, and ``packages``, the target of ``pip install --no-deps --target FOLDER/packages pytorch-ignite torchx hydra-core
omegaconf antlr4-python3-runtime==4.9.3 importlib-metadata zipp lazy-importer``, with TorchX's examples and a link
``param_bench`` to ``../param``. Accelerate is in the group ``compat``. Each script has two ranks: of one torchrun, of
``--standalone``, of two local nodes, and of two hosts under a stand-in for srun. The table shows the exit codes, and
the bounds of the share that the backend carried between nodes and between hosts, with the reason if they differ.
Scripts that exchange few kB have wide bounds: one datagram on a host may hide 64 kB.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts import Hosts, srun
from tests.namespaces import isolated
from torchnet.receipt.receipt_model import Receipt
from torchnet.receipt.table import exchanged
from torchnet.units import size

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # then it is ended
TIMEOUT = "time-out"


@dataclass(frozen=True)
class Script:
    """A script: its name in the table, its words, its folder below that of the clones, and its variables."""

    name: str
    words: str
    folder: str = "."
    env: dict[str, str] = field(default_factory=dict)


ACCELERATE = {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
BIN = "pytorch/test/distributed/launcher/bin"
PARAM = "comms.py --backend gloo --device cpu --begin-size 8 --end-size 1M --num-iters 5"
SCRIPTS = (
    *(
        Script(f"accelerate {name}", f"-m accelerate.test_utils.scripts.{name}", env=ACCELERATE)
        for name in ("test_cli", "test_sync", "test_ops", "test_script")
    ),
    Script("Ignite check_idist_parallel.py", "check_idist_parallel.py", "ignite/tests/ignite/distributed"),
    Script("PyTorch test_script_init_method.py", "test_script_init_method.py --init-method env://", BIN),
    Script("TorchX compute_world_size", "-m torchx.examples.apps.compute_world_size.main"),
    Script("PiPPy example_manual_stage.py", "example_manual_stage.py", "PiPPy/examples/basic"),
    *(
        Script(f"PARAM comms.py {name}", f"{PARAM} --collective {name}", "param/train/comms/pt")
        for name in ("all_reduce", "all_to_all", "all_gather", "broadcast")
    ),
)
LAUNCH = f"{sys.executable} -m torchnet launch --json"
WAYS = ("torchrun", "standalone", "two nodes", "two hosts")


def run(script: Script, clones: Path, way: str, results: Path) -> tuple[str, str]:
    """Run a script one way; its exit code, and the backend's share."""
    path = (clones / script.folder).resolve()
    receipt = results / f"{way.replace(' ', '-')}.json"
    variables = {
        **script.env,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, clones / "packages", clones / "PiPPy"))),
        "CUDA_VISIBLE_DEVICES": "",
    }
    line = {
        "torchrun": f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 {script.words}",
        "standalone": f"{LAUNCH} {receipt} --standalone --nproc-per-node 2 {script.words}",
        "two nodes": f"{LAUNCH} {receipt} --nnodes 2 {script.words}",
        "two hosts": f"cd {path}; exec {LAUNCH} {receipt} --start-timeout 60 {script.words}",
    }[way]
    log = results / f"{script.name.replace(' ', '-')}-{way.replace(' ', '-')}.log"
    if way == "two hosts":
        code = on_hosts(line, variables, log, results)
    else:
        code = ended([start(line, variables, path, log)])
    if not receipt.exists():
        return code, ""
    found = Receipt.model_validate_json(receipt.read_text())
    receipt.unlink()
    return code, share(found)


def share(found: Receipt) -> str:
    """The bounds of the backend's share, of how many bytes, and why they differ; or why it is unknown."""
    low, high = found.backend_share, found.backend_share_high
    if low is None or high is None:
        return found.proof_reason
    of = f"of {size(exchanged(found))}"
    return f"{low:.3f} {of}" if low == high else f"{low:.3f} to {high:.3f} {of}: {found.proof_reason}"


def start(line: str, variables: dict[str, str], path: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            shlex.split(line),
            cwd=path,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(processes: list[subprocess.Popen[bytes]]) -> str:
    """The first code that is not 0, else 0."""
    deadline = time.monotonic() + SECONDS
    try:
        codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.send_signal(signal.SIGTERM)  # SIGKILL would leave torchrun's ranks
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        return TIMEOUT
    return str(next(filter(None, codes), 0))


def on_hosts(line: str, variables: dict[str, str], log: Path, results: Path) -> str:
    code = results / "code"
    code.unlink(missing_ok=True)

    @isolated
    def body() -> None:
        processes = srun(Hosts(results), line, only=None, tasks=1, **variables)
        deadline = time.monotonic() + SECONDS
        texts: list[str] = []
        try:
            for process in processes:
                texts += process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            code.write_text(str(next(filter(None, [process.returncode for process in processes]), 0)))
        except subprocess.TimeoutExpired:
            code.write_text(TIMEOUT)
        log.write_text("\n".join(texts))

    body()
    return code.read_text() if code.exists() else "none"


def main(clones: Path, wanted: list[str]) -> None:
    print(f"| script | {' | '.join(WAYS)} | share, nodes | share, hosts |\n|{'---|' * 7}", flush=True)
    results = Path(tempfile.mkdtemp(prefix="foreign-"))
    for script in SCRIPTS:
        if wanted and not any(one in script.name for one in wanted):
            continue
        found = [run(script, clones, way, results) for way in WAYS]
        codes, shares = [code for code, _ in found], [share for _, share in found[2:]]
        print(f"| {' | '.join([script.name, *codes, *shares])} |", flush=True)
    print(f"\nlogs: {results}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
