"""--max-restarts: the whole group anew, as torchrun does it, and what is left when they are used up."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.jobs import Job, lines, receipt, run, script
from torchnet.constants import JOIN_PORT

# Every rank leaves a note of each attempt; rank 1 fails in the attempts below "fails", by "how".
NOTES = """
    import json, os, signal, socket, sys, time
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    names = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE")
    print(json.dumps([os.environ[name] for name in names]), flush=True)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as preflight:
        preflight.bind(("::", JOIN))  # is free while the processes run
    fails, how = int(sys.argv[1]), sys.argv[2]
    open(f"{sys.argv[3]}/{rank}-{attempt}", "w").close()
    while not all(os.path.exists(f"{sys.argv[3]}/{other}-{attempt}") for other in (0, 1)):
        time.sleep(0.02)
    if attempt < fails:
        if rank == 1:
            sys.exit(17) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    print("well done")
""".replace("JOIN", str(JOIN_PORT))


def test_one_failure_restarts_the_whole_group_once(tmp_path: Path) -> None:
    """Row 2: a process is killed; then everything anew, with another port for the store."""
    path = tmp_path / "receipt.json"
    notes = script(tmp_path, NOTES)
    done = run("--nnodes", "2", "--max-restarts", "1", "--json", path, notes, 1, "kill", tmp_path)
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        first, second, last = lines(done.stdout, rank)
        count, limit, port, address, size = json.loads(first)
        assert (count, limit, address, size) == ("0", "1", "fcbb:0:800:ffff::1", "2")
        count, limit, other_port, address, size = json.loads(second)
        assert (count, limit, address, size) == ("1", "1", "fcbb:0:800:ffff::1", "2")
        assert port != other_port
        assert last == "well done"
    found = receipt(path)
    assert (found["exit_code"], found["reason"], found["failure"], found["restarts"]) == (0, "done", None, 1)
    assert [rank["exit_code"] for rank in found["ranks"]] == [0, 0]
    assert "restart 1 of 1, because rank 1 on node-1 was killed by SIGKILL" in done.stderr
    assert "root cause" not in done.stderr
    assert len(re.findall("preflight: 2/2 paths", done.stderr)) == 2, "the paths are checked anew"


def test_when_the_restarts_are_used_up_the_last_failure_counts(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run(
        "--nnodes", "2", "--max-restarts", "2", "--json", path, script(tmp_path, NOTES), 9, "exit", tmp_path
    )
    assert done.code == 17, done.stderr
    found = receipt(path)
    assert (found["restarts"], found["exit_code"]) == (2, 17)
    assert sorted(file.name for file in tmp_path.glob("[01]-*")) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert done.stderr.count("torchnet: error: root cause: rank 1 on node-1 exited with code 17") == 1
    assert len({json.loads(line)[2] for line in lines(done.stdout, 0)}) == 3, "three ports"


def test_the_account_goes_on_over_a_restart(tmp_path: Path) -> None:
    """What was exchanged before a restart was exchanged, too."""
    text = """
        import os, socket, sys, time
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ["RANK"] == "0":
            peer = socket.create_server(place, family=socket.AF_INET6).accept()[0]
            while peer.recv(1 << 20):
                pass
        else:
            for _ in range(600):
                try:
                    peer = socket.create_connection(place)
                    break
                except OSError:
                    time.sleep(0.05)
            peer.sendall(bytes(5_000_000))
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)
        sys.exit(os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0")
    """
    path = tmp_path / "receipt.json"
    done = run("--nnodes", "2", "--max-restarts", "1", "--json", path, script(tmp_path, text))
    assert done.code == 0, done.stderr
    found = receipt(path)
    assert (found["backend_share"], found["proof"], found["restarts"]) == (1.0, "measured", 1)
    for node in found["nodes"]:
        assert abs(node["peer_bytes"] - 10_000_000) < 100


def test_ctrl_c_is_no_failure_to_restart_after(tmp_path: Path) -> None:
    sleep = script(tmp_path, "import time; print('here', flush=True); time.sleep(600)")
    with Job("--nnodes", "2", "--max-restarts", "3", sleep) as job:
        job.wait_for(r"\[rank 1\] here", on="stdout")
        job.send(signal.SIGINT)
        done = job.finish()
    assert done.code == 130
    assert "restart" not in done.stderr
