"""Jobs whose traffic no plan can express: python -m tests.traffic.others [NAME…].

Prints one line for each job: name, verdict, truth, the receipt's bounds and proof. Exits with 1 if a receipt claims
what is false.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.jobs import ROOT, TORCHNET, receipt, run
from tests.namespaces import Space, cable, ip, isolated
from tests.traffic.__main__ import line
from tests.traffic.oracle import Outcome, Truth, violation
from tests.traffic.plan import Plan
from torchnet.linux import namespaces
from torchnet.local import topology

_HERE = Path(__file__).parent
_TOLERANCE = 0.0005  # a few bytes per connection
_SECONDS = 120
# Under ``torchnet launch``, with these flags.
LAUNCHED = {
    "restart": "--nnodes 2 --max-restarts 1",
    "flap": "--fault node-1:net1:no-carrier@1+1",
} | dict.fromkeys(("tiny", "udplite", "mptcp", "store", "gloo", "chatty", "ping_eth0", "ping_net1"), "")
WITNESSED = (
    *("thread_files", "leader_gone", "macvlan_eth0", "macvlan_net1", "vxlan_eth0", "vxlan_net1"),
    *("temporary", "moved", "packets", "taken"),
)


def _launch(name: str, folder: Path) -> None:
    words = ["--json", folder / "receipt.json", *LAUNCHED[name].split(), _HERE / "script.py", name]
    done = run(*words, seconds=_SECONDS, env={"OTHERS_FOLDER": str(folder)})
    assert done.code == 0, f"exit code {done.code}\n{done.stdout}{done.stderr}"
    (folder / "said").write_text(done.stdout + done.stderr)


def _witness(name: str, folder: Path) -> None:
    far, hosts = Space(), [topology.node(rank, 1) for rank in range(2)]
    for near, other in zip(hosts[0].ports(), hosts[1].ports(), strict=True):
        pair = f"{near.address}/{near.prefix}", f"{other.address}/{other.prefix}"
        cable(near.interface, near.interface, far, addresses=(pair,))
    running = [_start(name, folder, 0, None), _start(name, folder, 1, far)]
    said = b"".join(process.communicate(timeout=_SECONDS)[1] for process in running)
    assert not any(process.returncode for process in running), said.decode()
    words = [*TORCHNET, "receipt", "merge", "--json", str(folder / "receipt.json")]
    words += [str(folder / f"{host}.json") for host in range(2)]
    merged = subprocess.run(words, check=True, capture_output=True)
    (folder / "said").write_bytes(said + merged.stdout)


def _start(name: str, folder: Path, host: int, space: Space | None) -> subprocess.Popen[bytes]:
    def enter() -> None:
        if space is not None:
            namespaces.setns(space.descriptor, namespaces.NEWNET)
        namespaces.unshare(namespaces.NEWUTS | namespaces.NEWNS)
        ip("-t sysfs none /sys", tool="mount")
        socket.sethostname(f"host-{host}")

    words = [*TORCHNET, "receipt", "--network", "host:net1", "--json", str(folder / f"{host}.json")]
    words += ["--", sys.executable, str(_HERE / "script.py"), name]
    env = {"OTHERS_FOLDER": str(folder), "OTHERS_HOLD": "0.4", "RANK": str(host), "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env={**os.environ, **env}, preexec_fn=enter, **pipes)  # noqa: PLW1509


def _truth(folder: Path, host: int | None = None) -> Truth:
    """What the processes counted; for one ``host``, what its own did."""
    sums: dict[tuple[bool, str], int] = {}
    for record in (folder / "record.jsonl").read_text().splitlines():
        for rank, way, what, size in json.loads(record):
            key = way.startswith("net"), what
            sums[key] = sums.get(key, 0) + (size if host in (None, rank) else 0)

    def amount(rails: bool) -> tuple[int, int]:
        both = [sums.get((rails, what), 0) for what in ("sent", "received")]
        return (2 * min(both), 2 * max(both)) if host is None else (sum(both), sum(both))

    return Truth(amount(True), amount(False), _TOLERANCE)


def judge(name: str, folder: Path, verbose: bool) -> bool:
    """Run one job and print its line; whether its receipt claims nothing false."""
    folder.mkdir()
    began = time.monotonic()
    (_launch if name in LAUNCHED else isolated(_witness))(name, folder)
    seconds, known, found = time.monotonic() - began, _truth(folder), receipt(folder / "receipt.json")
    wrong = violation(known, found)
    print(line(name, Outcome(Plan(), known, found, wrong, seconds)).partition("|")[0], found["proof_reason"])
    for host in range(2 * (name in WITNESSED)):
        alone = json.loads((folder / f"{host}.json").read_text())
        if more := violation(_truth(folder, host), alone):
            print(f"{name:>16} FALSE host {host} alone, {alone['proof']}: {more}")
            wrong = more
    print((folder / "said").read_text() if verbose else "", end="", flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="jobs [all]")
    parser.add_argument("--verbose", action="store_true", help="print what each job printed, too")
    options = parser.parse_args()
    names = options.names or [*LAUNCHED, *WITNESSED]
    false = broken = 0
    with tempfile.TemporaryDirectory(prefix="torchnet-others-") as folder:
        for number, name in enumerate(names):
            try:
                false += not judge(name, Path(folder) / str(number), options.verbose)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                broken += 1
                print(f"{name:>16} BROKEN {str(error)[:3000]}", flush=True)
    print(f"{len(names)} jobs: {false} false claims, {broken} that could not be judged")
    return 1 if false or broken else 0


if __name__ == "__main__":
    sys.exit(main())
