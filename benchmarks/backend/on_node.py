"""Runs on each node of a torchnet network what people would use instead: iperf3, torchrun, Gloo's own benchmark.

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
    """Node 0 serves, node 1 asks: one way, and both ways at once; the others wait."""
    if RANK == 0:
        for _ in range(2):
            subprocess.run(
                ["iperf3", "-s", "-1", "-B", ADDRESS, "-p", PORT], stdout=subprocess.DEVNULL, check=True
            )
    elif RANK == 1:
        for name, flags in (("one", ["-R"]), ("both", ["--bidir"])):
            told = ask(["iperf3", "-c", ADDRESS, "-p", PORT, "-t", seconds, "-O", "1", "-J", *flags])
            received = [told["end"]["sum_received"]["bits_per_second"]]
            if name == "both":
                received.append(told["end"]["sum_received_bidir_reverse"]["bits_per_second"])
            print(f"iperf3 {name} {' '.join(f'{one / 8:.0f}' for one in received)}", flush=True)


def ask(command: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Until the server is there."""
    for _ in range(50):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "error" not in (told := json.loads(done.stdout)):
            return dict(told)
        time.sleep(0.2)
    raise SystemExit(done.stdout + done.stderr)


def torchrun(script: str, arguments: list[str]) -> None:
    """As somebody without torchnet would, who knows which interface the backend is."""
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
    """The ring that torch's Gloo backend runs by default, without torch; the ranks meet in a folder."""
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
