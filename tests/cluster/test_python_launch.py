"""`torchnet.launch` on the cluster, off the main thread."""

from __future__ import annotations

import time

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import SMALL, Launcher

PROGRAM = """\
    import sys, threading, torchnet

    where = dict(zip(("namespace", "image", "cpus", "memory"), sys.argv[1:]))
    where |= {"on": "kubernetes", "nnodes": 2, "network": "backend-network"}

    def launch():
        receipt = torchnet.launch("train.py", **where)
        print(type(receipt).__name__, receipt.runtime, len(receipt.nodes), receipt.exit_code)
        try:
            torchnet.launch("train.py", ["9"], quiet=True, **where)
        except torchnet.errors.ScriptError as error:
            print(error.rank, error.exit_code, error.receipt.runtime)
        try:
            torchnet.launch("train.py", **where | {"network": "missing"})
        except torchnet.errors.NetworkError as error:
            print(error.receipt)

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
"""
SCRIPT = """\
    import os, sys
    sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 and os.environ["RANK"] == "1" else 0)
"""


@concurrent
def test_the_python_launch_returns_receipts_and_raises_errors(launcher: Launcher) -> None:
    launcher.script(SCRIPT)
    program = launcher.script(PROGRAM, "program.py")
    began = time.monotonic()
    words = (launcher.namespace, launcher.cluster.worker_image, SMALL[1], SMALL[3])
    ran = launcher.ended(launcher.start(*words, program=program), began)
    assert ran.out.splitlines() == ["Receipt kubernetes 2 0", "1 9 kubernetes", "None"], ran.err
    assert launcher.left() == []
