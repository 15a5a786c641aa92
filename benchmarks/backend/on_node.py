"""Run the established tools on each node of a torchnet network: iperf3, torchrun, Gloo's own benchmark.

torchnet launch on_node.py iperf3 SECONDS | loop MEBIBYTES SECONDS | script SCRIPT ARGS… |
                           gloo PROGRAM FOLDER ELEMENTS TIME
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

RANK, ADDRESS = int(os.environ["RANK"]), os.environ["MASTER_ADDR"]
PORT, STORE_PORT = "29700", "29701"


def iperf3(seconds: str) -> None:
    """Serve on node 0 and measure on node 1: one direction, and both at once; the other nodes wait."""
    if RANK == 0:
        for _ in range(2):
            subprocess.run(
                ["iperf3", "-s", "-1", "-B", ADDRESS, "-p", PORT], stdout=subprocess.DEVNULL, check=True
            )
    elif RANK == 1:
        for name, flags in (("one", ["-R"]), ("both", ["--bidir"])):
            report = ask(["iperf3", "-c", ADDRESS, "-p", PORT, "-t", seconds, "-O", "1", "-J", *flags])
            received = [report["end"]["sum_received"]["bits_per_second"]]
            if name == "both":
                received.append(report["end"]["sum_received_bidir_reverse"]["bits_per_second"])
            print(f"iperf3 {name} {' '.join(f'{one / 8:.0f}' for one in received)}", flush=True)


def ask(command: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Run the client until the server is reachable, and return its report."""
    for _ in range(50):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "error" not in (report := json.loads(done.stdout)):
            return dict(report)
        time.sleep(0.2)
    raise SystemExit(done.stdout + done.stderr)


def torchrun(script: str, arguments: list[str]) -> None:
    """Run torchrun as a user without torchnet would who knows the backend interface."""
    interface = os.environ["GLOO_SOCKET_IFNAME"]
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    environment |= {"GLOO_SOCKET_IFNAME": interface, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", os.environ["WORLD_SIZE"]]
    command += ["--nproc-per-node", "1", "--node-rank", str(RANK), "--master-addr", ADDRESS]
    command += ["--master-port", STORE_PORT, script, *arguments]
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


def gloo(program: str, folder: str, elements: str, seconds: str) -> None:
    """Run the ring that torch's Gloo backend uses by default, without torch; the ranks meet in a folder."""
    command = [program, "--size", os.environ["WORLD_SIZE"], "--rank", str(RANK), "--shared-path", folder]
    command += ["--transport", "tcp", "--tcp-device", os.environ["GLOO_SOCKET_IFNAME"], "--no-verify"]
    command += ["--elements", elements, "--iteration-time", seconds, "new_allreduce_ring"]
    raise SystemExit(subprocess.run(command, check=False).returncode)


what, *words = sys.argv[1:]
if what == "iperf3":
    iperf3(*words)
elif what == "loop":
    torchrun(str(Path(__file__).with_name("loop.py")), words)
elif what == "gloo":
    gloo(*words)
else:
    torchrun(words[0], words[1:])
