"""Scripts that nobody here wrote, unmodified, under torchrun and three times under torchnet: not a part of CI.

    python -m tests.foreign_scripts FOLDER [PART OF A NAME …]

FOLDER holds clones by the repositories' names: pytorch, ignite, PiPPy, param, training-operator (the parent of
7858371b4, with FashionMNIST's four idx files, of random numbers, in ``examples/pytorch/data/FashionMNIST/raw``), and
the scripts of Transformers' distributed tests. ``packages`` and ``vision`` are targets of ``pip install --no-deps
--target``: pytorch-ignite, torchx, hydra-core, omegaconf, antlr4-python3-runtime==4.9.3, importlib-metadata, zipp,
lazy-importer, tensorboardX and protobuf, and a link ``param_bench`` to ``../param``; torchvision alone in ``vision``.
Accelerate and Transformers are in the group ``compat``.

Each script has two ranks: of one torchrun, of ``--standalone``, of two local nodes, and of two hosts under a stand-in
for srun. The table shows the exit codes, how much of the essential output is as under torchrun, and the bounds of the
share that the backend carried between nodes and between hosts, with the reason if they differ. Scripts that exchange
few kB have wide bounds: one datagram on a host may hide 64 kB. The command fails if a script does worse than torchrun.
"""

from __future__ import annotations

import os
import re
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
    """A script.

    Attributes:
        name: Its name in the table.
        words: What follows the launcher.
        says: A pattern of its essential output.
        folder: Where it runs, below the folder of the clones.
        env: Additional variables.
        source: The repository, and the commit or the version.
    """

    name: str
    words: str
    says: str
    folder: str = "."
    env: dict[str, str] = field(default_factory=dict)
    source: str = ""


ACCELERATE = {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
BIN = "pytorch/test/distributed/launcher/bin"
PARAM = "comms.py --backend gloo --device cpu --begin-size 8 --end-size 1M --num-iters 5"
OPERATOR = "training-operator/examples/pytorch"
OPERATOR_SOURCE = "kubeflow/training-operator ee1162919"
TRAINER = "--output_dir /tmp/foreign-out --report_to none --use_cpu --ddp_backend gloo"
TRANSFORMERS = "transformers/tests/trainer/distributed/scripts"
SCRIPTS = (
    *(
        Script(
            f"test_utils/scripts/{name}.py",
            f"-m accelerate.test_utils.scripts.{name}",
            says,
            env=ACCELERATE,
            source="huggingface/accelerate 1.15.0",
        )
        for name, says in (
            ("test_sync", r"\*\*Test [^\n]*\*\*"),
            ("test_ops", r"testing \w+"),
            ("test_script", r"\*\*[A-Z][^*\n]*\*\*"),
        )
    ),
    Script(
        "check_idist_parallel.py",
        "check_idist_parallel.py --backend gloo",
        r"\d : run with config: .*backend=gloo",
        "ignite/tests/ignite/distributed",
        source="pytorch/ignite de08e799c",
    ),
    Script(
        "test_script_init_method.py",
        "test_script_init_method.py --init-method env://",
        "Done",
        BIN,
        source="pytorch/pytorch 0536503aa",
    ),
    Script(
        "apps/compute_world_size",
        "-m torchx.examples.apps.compute_world_size.main",
        r"rank: \d, actual world_size: \d, computed world_size: \d",
        source="pytorch/torchx 0.7.0",
    ),
    Script(
        "example_manual_stage.py",
        "example_manual_stage.py",
        r"Rank \d finished",
        "PiPPy/examples/basic",
        source="pytorch/PiPPy 1bcb2bfb2",
    ),
    Script(
        "dist_sendrecv.py",
        "dist_sendrecv.py",
        r"Result from worker \d",
        f"{OPERATOR}/smoke-dist",
        source=OPERATOR_SOURCE,
    ),
    Script(
        "cpu-demo/demo.py",
        "demo.py",
        r"rank \d world_size \d result \S+",
        f"{OPERATOR}/cpu-demo",
        source=OPERATOR_SOURCE,
    ),
    Script(
        "mnist.py",
        "mnist.py --dir /tmp/foreign-out",
        r"accuracy=\S+",
        f"{OPERATOR}/mnist",
        source=OPERATOR_SOURCE,
        env={"PYTHONPATH": "vision"},
    ),
    Script(
        "scripts/eval_ddp.py",
        f"eval_ddp.py {TRAINER}",
        "100%",
        TRANSFORMERS,
        source="huggingface/transformers 4a5e9d962",
    ),
    Script(
        "scripts/dispatch_batches.py",
        f"dispatch_batches.py {TRAINER}",
        r"'train_loss': '[\d.]+'",
        TRANSFORMERS,
        source="huggingface/transformers 384503e0b",
    ),
    *(
        Script(
            f"comms.py --collective {name}",
            f"{PARAM} --collective {name}",
            r"COMMS-RES-\w+-float32\s+\d+",
            "param/train/comms/pt",
            source="facebookresearch/param 1e115ffc6",
        )
        for name in ("all_reduce", "all_to_all")
    ),
)
LAUNCH = f"{sys.executable} -m torchnet launch --json"
WAYS = ("torchrun", "standalone", "two nodes", "two hosts")


def run(script: Script, clones: Path, way: str, results: Path) -> tuple[str, list[str], str]:
    """Run a script one way; its exit code, its essential output, and the backend's share."""
    path = (clones / script.folder).resolve()
    receipt = results / f"{way.replace(' ', '-')}.json"
    more = script.env.get("PYTHONPATH", "packages")
    paths = (ROOT, clones / "packages", clones / "PiPPy", clones / more)
    variables = {**script.env, "PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
    line = {
        "torchrun": f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 {script.words}",
        "standalone": f"{LAUNCH} {receipt} --standalone --nproc-per-node 2 {script.words}",
        "two nodes": f"{LAUNCH} {receipt} --nnodes 2 {script.words}",
        "two hosts": f"cd {path}; exec {LAUNCH} {receipt} --start-timeout 60 {script.words}",
    }[way]
    log = results / f"{re.sub('[ /]', '-', script.name)}-{way.replace(' ', '-')}.log"
    if way == "two hosts":
        code = on_hosts(line, variables, log, results)
    else:
        code = ended([start(line, variables, path, log)])
    # A script may print on the first rank of each node.
    said = sorted({*re.findall(script.says, log.read_text(errors="replace"))}) if log.exists() else []
    if not receipt.exists():
        return code, said, ""
    found = Receipt.model_validate_json(receipt.read_text())
    receipt.unlink()
    return code, said, share(found)


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


def main(clones: Path, wanted: list[str]) -> bool:
    """Print the table; whether no script did worse than under torchrun."""
    print(
        f"| script | source | {' | '.join(WAYS)} | share, nodes | share, hosts |\n|{'---|' * 8}", flush=True
    )
    results = Path(tempfile.mkdtemp(prefix="foreign-"))
    good = True
    for script in SCRIPTS:
        if wanted and not any(one in script.name for one in wanted):
            continue
        found = [run(script, clones, way, results) for way in WAYS]
        code, said, _ = found[0]
        good &= all(other == code and lines == said for other, lines, _ in found[1:]) or code != "0"
        shown = [f"{code}; {f'{len(said)} × `{script.says}`'.replace('|', chr(92) + '|')}"]
        shown += [
            f"{other}; {'same' if lines == said else compared(lines, said)}" for other, lines, _ in found[1:]
        ]
        shares = [share for *_, share in found[2:]]
        print(f"| {' | '.join([script.name, script.source, *shown, *shares])} |", flush=True)
    print(f"\nlogs: {results}", flush=True)
    return good


def compared(lines: list[str], said: list[str]) -> str:
    """What is missing of torchrun's output, and what is there instead."""
    missing, more = (
        [one for one in these if one not in those] for these, those in ((said, lines), (lines, said))
    )
    return f"{len(lines)}, without {missing[:3]}, with {more[:3]}"


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
