"""What a local node owes to those who come from torchrun, other than output and signals."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import lines, run, script

LOOK = """
    import os, sys
    names = ("TORCHELASTIC_RUN_ID", "ROLE_NAME", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "RANK")
    print(*(os.environ.get(name) for name in names), *sys.argv[1:])
"""


def test_identity_and_arguments(tmp_path: Path) -> None:
    """One launch for --rdzv-id, --role, --virtual-local-rank and ${local_rank}; two processes on one node."""
    flags = ("--nproc-per-node", "2", "--rdzv-id", "My Job", "--role", "trainer", "--virtual-local-rank")
    done = run(*flags, script(tmp_path, LOOK), "run_${local_rank}.txt", env={"CUDA_VISIBLE_DEVICES": "5,7"})
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [
        ["My Job trainer 0 5 0 run_0.txt"],
        ["My Job trainer 0 7 1 run_1.txt"],
    ]
    assert "receipt of my-job: " in done.stderr


def test_the_callers_error_file_gets_the_root_cause(tmp_path: Path) -> None:
    text = """
        import json, os, sys, time
        if os.environ["RANK"] == "0":
            time.sleep(60)
        with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
            json.dump({"message": {"message": "oh no", "extraInfo": {}}}, file)
        sys.exit(3)
    """
    reply = tmp_path / "reply.json"
    flags = ("--nnodes", "2", "--grace", "1")
    done = run(*flags, script(tmp_path, text), env={"TORCHELASTIC_ERROR_FILE": str(reply)})
    assert done.code == 3, done.stderr
    assert "TORCHELASTIC_ERROR_FILE" not in done.stderr
    assert json.loads(reply.read_text()) == {"message": {"message": "oh no", "extraInfo": {}, "errorCode": 3}}


LEAVES = """
    import os, subprocess, sys, time
    wait = "import time; open('began', 'w'); time.sleep(3); print('uploaded', flush=True); open('done', 'w')"
    subprocess.Popen([sys.executable, "-c", wait])
    while not os.path.exists("began"):  # before, /proc does not have its command yet
        time.sleep(0.01)
    print("ready", flush=True)
"""


def test_what_a_rank_leaves_behind_is_printed_and_waited_for(tmp_path: Path) -> None:
    """Its output, too: it would end by SIGPIPE if the pipes of its rank were closed."""
    done = run("--nnodes", "1", script(tmp_path, LEAVES), cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0) == ["ready", "uploaded"]
    assert (tmp_path / "done").exists()
    assert "processes that ended ranks have left behind: " in done.stderr
    assert re.search(r"left behind: rank 0's python\S* -c import time; open\('began'", done.stderr)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_refused_connection_to_a_service_of_the_machine_is_explained(
    tmp_path: Path, host: str, shown: str
) -> None:
    """In the last line, also where the error does not name the port; nothing is said of a port nobody has."""
    text = """
        import socket, sys
        for port in map(int, sys.argv[2:]):
            try:
                socket.create_connection((sys.argv[1], port))
            except OSError:
                pass
        raise RuntimeError("no server")
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_server((host, 0), family=family) as gone,
    ):
        port, nobodys = server.getsockname()[1], gone.getsockname()[1]
        gone.close()
        done = run("--nnodes", "2", script(tmp_path, text), host, port, nobodys)
    assert done.code == 1
    last = done.stderr.splitlines()[-1]
    assert f"a connection to {shown}:{port} was refused on node-" in last
    assert "--network loopback" in last
    assert f"{shown}:{nobodys} was refused" not in done.stderr


def test_what_went_wrong_before_a_restart_does_not_explain_the_end(tmp_path: Path) -> None:
    """Neither the error file nor the refused connections of an earlier attempt, even those after its failure."""
    text = """
        import json, os, signal, socket, sys, time
        def connect(name):
            try:
                socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            except OSError:
                open(name, "w").close()
        attempt, parent = os.environ["TORCHELASTIC_RESTART_COUNT"], os.getpid()
        if os.environ["RANK"] == "0":
            time.sleep(60)
        if attempt == "0":
            connect("before")
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                open("ready", "w").close()
                while os.getppid() == parent:
                    time.sleep(0.01)
                connect("after")
                os._exit(0)
            while not os.path.exists("ready"):
                time.sleep(0.01)
            with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
                json.dump({"message": {"message": "of attempt 0", "extraInfo": {}}}, file)
            sys.exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    reply = tmp_path / "reply.json"
    flags = ("--nnodes", "2", "--grace", "5", "--max-restarts", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        variables = {"TORCHELASTIC_ERROR_FILE": str(reply)}
        port = server.getsockname()[1]
        done = run(*flags, script(tmp_path, text), port, cwd=tmp_path, env=variables)
    assert done.code == 137, done.stderr
    assert [(tmp_path / name).exists() for name in ("before", "after")] == [True, True]
    assert not reply.exists()
    assert "was refused on" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights over other users' files")
def test_root_keeps_its_rights_over_files(tmp_path: Path) -> None:
    needs.networks()
    folder = tmp_path / "of another user"
    folder.mkdir()
    (folder / "data").write_text("secret")
    for path in (folder / "data", folder):
        os.chown(path, 1000, 1000)
        path.chmod(0o600 if path.is_file() else 0o700)
    text = """
        import os, socket, sys
        print(open(sys.argv[1] + "/data").read())
        open(sys.argv[1] + "/checkpoint", "w").close()
        os.chown(sys.argv[1] + "/checkpoint", 1000, 1000)
        try:
            socket.sethostname("x")
        except PermissionError:
            print("no other rights")
    """
    done = run("--nnodes", "1", script(tmp_path, text), folder)
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0) == ["secret", "no other rights"]
    assert os.stat(folder / "checkpoint").st_uid == 1000
