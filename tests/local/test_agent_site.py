"""The end of a script under the agent: Gloo's threads come to rest before the interpreter goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import script
from torchnet.agent.worker_processes import with_site

# A thread with the name of one of Gloo's computes outside of the interpreter, and needs it once afterwards: the end of
# the interpreter would freeze it before it can write.
THREAD = """
    import ctypes, hashlib, sys, threading, time, types

    name, times, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    sys.modules["torch.distributed"] = types.ModuleType("torch.distributed")
    data, begun = bytes(200_000_000), threading.Event()

    def work():
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
        begun.set()
        if not times:
            time.sleep(0.5)
        for _ in range(times):
            hashlib.sha512(data)  # 0.25 s
        with open(path, "w") as file:
            file.write("done")

    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    print("end", flush=True)
"""


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("name", "times", "site", "waits"),
    [
        ("pt_gloo_runloop", 1, True, True),
        ("pt_gloo_runloop", 1, False, False),
        ("pt_gloo_runloop", 0, True, False),  # it rests
        ("pt_other", 1, True, False),
        ("pt_gloo_runloop", 1000, True, False),  # not for ever
    ],
)
def test_the_end_waits_for_a_thread_of_gloos(
    tmp_path: Path, name: str, times: int, site: bool, waits: bool
) -> None:
    path = tmp_path / "file"
    command = [sys.executable, str(script(tmp_path, THREAD)), name, str(times), str(path)]
    env = with_site({}) if site else {}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
    assert path.exists() == waits
