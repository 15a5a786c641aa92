"""Scripts that were written for other launchers: they run unmodified, and their traffic is on the backend.

accelerate's own test and torchrun itself are taken from their packages; what stands in scripts/ is a package's
quick start. All of them run under torchrun as well, except spawns.py: there the processes that a rank starts wait
for a store that nobody hosts, since they inherit TORCHELASTIC_USE_AGENT_STORE=True.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, lines, receipt, run
from tests.training import needs_torch

SCRIPTS = ROOT / "tests" / "local" / "scripts"
SECONDS = 250  # most take some seconds; the machine may be busy with other things


@dataclass(frozen=True)
class Case:
    """A script, and what each of its ranks says, as a pattern, when all has gone well."""

    words: tuple[str, ...]
    says: str
    nproc: int = 1
    package: str = "torch"
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=lambda: {"HF_HUB_OFFLINE": "1"})


def ours(name: str, *arguments: str, says: str, **fields: Any) -> Case:
    return Case((str(SCRIPTS / name), *arguments), says, **fields)


CASES = {
    "DDP, --local-rank, @record, workers": ours(
        "ddp_use_env.py", says=r"rank \d of 4, locally [01]: trained", nproc=2
    ),
    "FSDP2, tensor parallel": ours("sharded.py", says=r"rank \d of 4: trained", nproc=2),
    "spawn": ours("spawns.py", says=r"rank \d of 2: 2000"),
    "URL of an IPv4 address": ours("url.py", says=r"rank \d of 2: 2000", flags=("--family", "ipv4")),
    # These send objects, which torch does by way of NumPy.
    "checkpoint": ours("sharded.py", "checkpoint", says="restored", package="numpy"),
    "pipeline": ours("pipeline.py", says=r"rank \d of 2: piped", package="numpy"),
    "RPC": ours("rpc.py", says=r"rank \d of 2: called", package="numpy"),
    # As its documentation has it: each node starts a torchrun, and they meet at the first by its name.
    "torchrun on each node": Case(
        (
            *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
            *("--rdzv-id=nested", "--rdzv-endpoint=node-0:29400", str(SCRIPTS / "ddp_use_env.py")),
        ),
        r"rank \d of 2, locally 0: trained",
    ),
    "Lightning": ours("lightning_trainer.py", says=r"rank \d of 2: node \d fitted", package="lightning"),
    "transformers": ours("transformers_trainer.py", says=r"rank \d of 2: trained", package="transformers"),
    # Where `accelerate launch --cpu` sets this variable, others must.
    "accelerate": Case(
        ("-m", "accelerate.test_utils.scripts.test_script"),
        r"Distributed environment: DistributedType\.MULTI_CPU .*Backend: gloo",
        package="accelerate",
        env={"ACCELERATE_USE_CPU": "true"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_script_of_another_launcher_runs_unmodified(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for package in dict.fromkeys(["torch", case.package]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (uv sync --group compat)")
    path = tmp_path / "receipt.json"
    flags = (*case.flags, f"--nproc-per-node={case.nproc}", "--min-share=0.9", "--json", path)
    done = run("--nnodes=2", *flags, *case.words, env=case.env, cwd=tmp_path, seconds=SECONDS)
    assert done.code == 0, done.stderr
    for rank in range(2 * case.nproc):
        said = lines(done.stdout, rank)
        assert any(re.match(case.says, line) for line in said), (rank, said, done.stderr)
    # torchnet itself has nothing to complain of: no stall, no variable that was set otherwise, no finding.
    assert re.findall(r"^torchnet: (?:warning|error):.*|^.*\bstall.*", done.stderr, re.MULTILINE) == []

    found = receipt(path)
    assert (found["reason"], found["findings"]) == ("done", [])
    assert (
        found["backend_share"] >= 0.9
    )  # the jobs exchange 10 kB, beside which a look-up by UDP over eth0 is much
    assert [rank["exit_code"] for rank in found["ranks"]] == [0] * (2 * case.nproc)
    for node in found["nodes"]:
        assert node["peer_bytes"] > 1000
        assert node["interfaces"]["net1"]["sent_bytes"] > 1000


@needs_torch
def test_an_url_without_the_brackets_of_ipv6_is_explained() -> None:
    done = run(SCRIPTS / "url.py", seconds=SECONDS)
    assert done.code == 1
    for text in ("MASTER_ADDR needs brackets", "init_method='env://'", "--family ipv4"):
        assert text in done.stderr, done.stderr
