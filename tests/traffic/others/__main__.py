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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.jobs import ROOT, SLOW, TORCHNET, Job, parent, receipt, until
from tests.namespaces import Space, cable, ip, isolated
from tests.traffic.oracle import Truth, violation
from tests.traffic.outsider import enter
from torchnet.linux import namespaces
from torchnet.local import topology

_HERE = Path(__file__).parent
_TOLERANCE = 0.0005  # a few bytes per connection
_SECONDS = 120


@dataclass(frozen=True)
class Kind:
    """A job: its flags under ``torchnet launch``, or ``witnessed``; ``outsider``: beside a host that is in no job."""

    flags: str = ""
    witnessed: bool = False
    ipv4: bool = False
    outsider: bool = False


LAUNCHED = {
    "tiny": Kind(),
    "disconnect": Kind(),
    "mptcp": Kind(),
    "store": Kind(),
    "gloo": Kind(),
    "fastopen": Kind(),
    "unaccepted": Kind(),
    "restart": Kind("--max-restarts 1"),
    "calls": Kind(),
    "flap": Kind("--fault node-1:net1:no-carrier@1+1"),
    "ping": Kind(),
    "swapped": Kind(ipv4=True, outsider=True),
}
WITNESSED = (
    "thread_files",
    "leader_gone",
    "macvlan_net1",
    "temporary",
    "moved",
    "packets",
    "taken",
    "orphaned",
)
KINDS = LAUNCHED | {name: Kind(witnessed=True) for name in WITNESSED}


def _launch(name: str, kind: Kind, folder: Path) -> None:
    words = ["--nnodes", 2, "--family", "ipv4" if kind.ipv4 else "ipv6", "--json", folder / "receipt.json"]
    words += [*kind.flags.split(), _HERE / "launched.py", name]
    with Job(*words, env={"OTHERS_FOLDER": str(folder)}) as job:
        with _outsider(job, folder) if kind.outsider else nullcontext():
            done = job.finish(_SECONDS)
    (folder / "said").write_text(done.stdout + done.stderr)
    assert done.code == 0, f"exit code {done.code}\n{done.stdout}{done.stderr}"


@contextmanager
def _outsider(job: Job, folder: Path) -> Iterator[None]:
    """A host beside the job, whose TCP answers leave where its eth0 address is not."""
    until((folder / "ready").exists, "the ranks are ready", pause=SLOW)
    above = parent(job.agent(min(job.ranks())))
    pid = os.fork()
    if pid == 0:
        enter(str(above), ipv4=True)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"back0")
            server.setsockopt(socket.SOL_SOCKET, 5, 1)  # SO_DONTROUTE
            server.bind(("172.30.9.9", 0))
            server.listen()
            (folder / "outsider").write_text(str(server.getsockname()[1]))
            for _ in range(2):
                with server.accept()[0] as sock:
                    if sock.recv(1) == b">":
                        sock.sendall(bytes(4_000_000))
                        continue
                    left = 4_000_000
                    while left:
                        left -= len(sock.recv(1 << 16)) or sys.exit(1)
                    sock.send(b"!")
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _witness(name: str, kind: Kind, folder: Path) -> None:
    far, hosts = Space(), [topology.node(rank, 1, ipv4=False) for rank in range(2)]
    for near, other in zip(hosts[0].ports(), hosts[1].ports(), strict=True):
        pair = f"{near.address}/{near.prefix}", f"{other.address}/{other.prefix}"
        cable(near.interface, near.interface, far, addresses=(pair,))
    running = [_start(name, folder, 0, None), _start(name, folder, 1, far)]
    said = b"".join(process.communicate(timeout=_SECONDS)[1] for process in running)
    assert not any(process.returncode for process in running), said.decode()
    words = [*TORCHNET, "receipt", "merge", "--json", str(folder / "receipt.json")]
    merged = subprocess.run(
        [*words, *(str(folder / f"{host}.json") for host in range(2))], check=True, capture_output=True
    )
    (folder / "said").write_bytes(said + merged.stdout)


def _start(name: str, folder: Path, host: int, space: Space | None) -> subprocess.Popen[bytes]:
    def enter() -> None:
        if space is not None:
            namespaces.setns(space.descriptor, namespaces.NEWNET)
        namespaces.unshare(namespaces.NEWUTS | namespaces.NEWNS)
        ip("-t sysfs none /sys", tool="mount")
        socket.sethostname(f"host-{host}")

    words = [*TORCHNET, "receipt", "--network", "host:net1", "--json", str(folder / f"{host}.json")]
    words += ["--", sys.executable, str(_HERE / "witnessed.py"), name]
    env = {
        **os.environ,
        "OTHERS_FOLDER": str(folder),
        "RANK": str(host),
        "OTHERS_HOLD": "0.4",
        "PYTHONPATH": str(ROOT),
    }
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env=env, preexec_fn=enter, **pipes)  # noqa: PLW1509


def _truth(folder: Path, host: int | None = None) -> Truth:
    """What the processes counted; for one ``host``, what its own did."""
    sums: dict[tuple[bool, str], int] = {}
    for line in (folder / "record.jsonl").read_text().splitlines():
        for rank, way, what, size in json.loads(line):
            key = way.startswith("net"), what
            sums[key] = sums.get(key, 0) + (size if host in (None, rank) else 0)
    ranges = []
    for rails in (True, False):
        sent, received = sums.get((rails, "sent"), 0), sums.get((rails, "received"), 0)
        if host is None:
            ranges.append((2 * min(sent, received), 2 * max(sent, received)))
        else:
            ranges.append((sent + received, sent + received))
    return Truth(ranges[0], ranges[1], _TOLERANCE)


def judge(name: str, folder: Path, verbose: bool) -> bool:
    """Run one job and print its line; whether its receipt claims nothing false."""
    folder.mkdir()
    began = time.monotonic()
    kind = KINDS[name]
    (isolated(_witness) if kind.witnessed else _launch)(name, kind, folder)
    seconds, known, found = time.monotonic() - began, _truth(folder), receipt(folder / "receipt.json")
    wrong = violation(known, found)
    low, high = known.low or 0.0, known.high or 0.0
    true = f"{low:.6f}" + ("" if low == high else f"..{high:.6f}")
    share, most = found["backend_share"], found["backend_share_high"]
    claim = "null" if share is None else f"{share:.6f}..{most:.6f}"
    print(
        f"{name:>16} {'FALSE' if wrong else 'ok':5} truth {true} receipt {claim} {found['proof']} "
        f"{seconds:.1f}s | {found['proof_reason']}",
        flush=True,
    )
    for host in range(2 * kind.witnessed):
        alone = json.loads((folder / f"{host}.json").read_text())
        if more := violation(_truth(folder, host), alone):
            print(f"{name:>16} FALSE host {host} alone, {alone['proof']}: {more}", flush=True)
            wrong = more
    if verbose:
        print((folder / "said").read_text(), flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="jobs [all]")
    parser.add_argument("--verbose", action="store_true", help="print what each job printed, too")
    options = parser.parse_args()
    false = broken = 0
    with tempfile.TemporaryDirectory(prefix="torchnet-others-") as folder:
        for name in options.names or KINDS:
            try:
                false += not judge(name, Path(folder) / name, options.verbose)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                broken += 1
                print(f"{name:>16} BROKEN {str(error)[:3000]}", flush=True)
    print(f"{len(options.names or KINDS)} jobs: {false} false claims, {broken} that could not be judged")
    return 1 if false or broken else 0


if __name__ == "__main__":
    sys.exit(main())
