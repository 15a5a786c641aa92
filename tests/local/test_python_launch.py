"""`torchnet.launch` as programs use it: with threads and torch, off the main thread, and what it raises."""

from __future__ import annotations

import os
import signal
import sys
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, Ended, Job, lines, marked, receipt, run, script, until
from tests.local.test_refused import NO_USER_NAMESPACES
from torchnet.errors import TorchnetError
from torchnet.local import supervisor_process

EXCHANGE = """
    import os, socket, time
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        peer = socket.create_server(place, family=family).accept()[0]
        print(len(peer.recv(1 << 20, socket.MSG_WAITALL)))
    else:
        while True:
            try:
                peer = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.05)
        peer.sendall(bytes(1 << 20))
        peer.recv(1)
"""
WAIT = """
    import signal, sys, time
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (print("stopped", flush=True), sys.exit(0)))
    print("ready", flush=True)
    time.sleep(600)
"""


def program(folder: Path, text: str, *around: str, **options: Any) -> Job:
    """A program that imports torchnet, in a folder of its own; its arguments follow."""
    (folder / "program").mkdir(exist_ok=True)
    path = script(folder / "program", "import sys, torchnet\n", "main.py")
    path.write_text(path.read_text() + script(folder, text, "body.txt").read_text())
    return Job(*options.pop("arguments", ()), command=(*around, sys.executable, str(path)), **options)


def ended(*arguments: Any, **options: Any) -> Ended:
    __tracebackhide__ = True
    with program(*arguments, **options) as job:
        return job.finish()


def test_a_process_with_torch_and_threads_is_never_forked(tmp_path: Path) -> None:
    text = """
        import os, signal, threading, torch
        def work():
            while not done.wait(0.001):
                torch.ones(64, 64) @ torch.ones(64, 64)
        os.register_at_fork(before=lambda: os._exit(99))
        done = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)]
        for network in ({"rate": "1gbit"}, {"network": "loopback"}):
            receipt = torchnet.launch(sys.argv[1], nnodes=2, env={"MINE": 1}, **network)
            print(type(receipt).__name__, receipt.exit_code, receipt.backend_share, len(receipt.nodes))
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)]
        done.set()
        thread.join()
    """
    exchange = script(tmp_path, EXCHANGE)
    done = ended(tmp_path, text, arguments=(exchange,))
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0) == ["1048576"] * 2
    own = [line for line in done.stdout.splitlines() if not line.startswith("[rank")]
    assert own == ["Receipt 0 1.0 2", "Receipt 0 None 2"]


def test_two_jobs_at_once_off_the_main_thread(tmp_path: Path) -> None:
    text = """
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor() as pool:
            jobs = [pool.submit(torchnet.launch, sys.argv[1], run_id=name, quiet=True) for name in ("one", "two")]
        print(sorted((job.result().run_id, job.result().backend_share) for job in jobs))
    """
    done = ended(tmp_path, text, arguments=(script(tmp_path, EXCHANGE),))
    assert done.stdout.splitlines()[-1] == "[('one', 1.0), ('two', 1.0)]", done.stderr


def test_what_a_failed_job_raises(tmp_path: Path) -> None:
    text = """
        import os, threading
        def show(**settings):
            try:
                torchnet.launch(sys.argv[1], quiet=True, **settings)
            except torchnet.errors.TorchnetError as error:
                where = getattr(error, "rank", None), getattr(error, "node", None)
                print(type(error).__name__, error.exit_code, *where, error.receipt and error.receipt.exit_code)
        show(env={"CODE": 3})
        show(env={"CODE": 3}, network="loopback")
        show(min_share=0, network="loopback")
        show(env={"SLEEP": 60}, timeout=1.5, grace=0)
        show(fault="node-1:net1:no-carrier")
    """
    waits = script(
        tmp_path,
        """
        import os, sys, time
        time.sleep(int(os.environ.get("SLEEP", "0")))
        sys.exit(int(os.environ.get("CODE", "0")) if os.environ["RANK"] == "1" else 0)
        """,
    )
    done = ended(tmp_path, text, arguments=(waits,))
    assert done.stdout.splitlines() == [
        "ScriptError 3 1 node-1 3",
        "ScriptError 3 1 node-1 3",
        "MinShareError 5 None None 5",
        "JobTimeoutError 124 None None 124",
        "NetworkError 4 None None 4",
    ], done.stderr


def test_wrong_settings_and_scripts_start_nothing(tmp_path: Path) -> None:
    text = """
        for settings in ({"nnods": 2}, {"rate": "1gb"}, {"tune": {"compres": "bf16"}}, {"env": ["A"]}, {"rate": None}):
            try:
                torchnet.launch("missing.py", **settings)
            except torchnet.errors.UsageError as error:
                print(str(error).splitlines()[1].strip())
    """
    done = ended(tmp_path, text)
    said = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "nnods",
        "network.rate",
        "tune.compres",
        "env",
        "missing.py",
    ]
    assert "nnodes" in said[0]
    assert "rate=" in said[1]


def test_an_interpreter_that_cannot_be_executed_raises_a_usage_error(tmp_path: Path) -> None:
    text = """
        import os
        def show(network):
            try:
                torchnet.launch(sys.argv[1], network=network)
            except torchnet.errors.UsageError as error:
                print(error.fix.split()[1])
        own = sys.executable
        for sys.executable in (None, "", "/missing/python", "/bin/false"):
            show(None), show("loopback")
        sys.executable = own
        os.environ.update({f"LARGE{number}": "x" * 100_000 for number in range(25)})
        show(None)
    """
    done = ended(tmp_path, text, arguments=(script(tmp_path, EXCHANGE),))
    assert done.stdout.split() == [*["sys.executable"] * 8, "large"], done.stderr


@pytest.mark.parametrize("closed", ["at its start", "later"])
def test_a_caller_without_standard_streams(tmp_path: Path, closed: str) -> None:
    text = f"""
        import os
        from pathlib import Path
        if {closed == "later"}:
            os.closerange(0, 3)
        torchnet.launch(sys.argv[1], json=str(Path(sys.argv[1]).with_name("receipt.json")))
    """
    around = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh") if closed == "at its start" else ()
    done = ended(tmp_path, text, *around, arguments=(script(tmp_path, EXCHANGE),))
    assert done.code == 0
    assert receipt(tmp_path / "receipt.json")["backend_share"] == 1.0


def test_a_supervisor_that_is_killed_during_its_start() -> None:
    supervisor = supervisor_process.spawn()
    try:
        supervisor.process.kill()
        with pytest.raises(TorchnetError, match="SIGKILL") as caught:
            supervisor_process.start(supervisor, b"{}", [], sandbox=True)
    finally:
        supervisor.kill()
    assert caught.value.exit_code == 70


def test_torchnet_in_a_zip_archive(tmp_path: Path) -> None:
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((ROOT / "torchnet").rglob("*.py")) + sorted(
            (ROOT / "torchnet_launch").rglob("*.py")
        ):
            file.write(path, path.relative_to(ROOT))
    text = "print(torchnet.__file__, torchnet.launch(sys.argv[1], nnodes=1).exit_code)"
    prints = script(tmp_path, "print('printed')")
    done = ended(tmp_path, text, arguments=(prints,), env={"PYTHONPATH": str(archive)})
    assert lines(done.stdout, 0) == ["printed"], done.stderr
    assert done.stdout.splitlines()[-1] == f"{archive}/torchnet/__init__.py 0"


def test_refused_namespaces_raise_the_mechanism(tmp_path: Path) -> None:
    text = """
        try:
            torchnet.launch(sys.argv[1])
        except torchnet.errors.NetworkError as error:
            print(error.receipt, error)
    """
    done = ended(tmp_path, text, *NO_USER_NAMESPACES, arguments=(script(tmp_path, EXCHANGE),))
    assert done.stdout.startswith("None ")
    assert "user.max_user_namespaces" in done.stdout


def test_ctrl_c_is_raised_when_the_job_has_ended(tmp_path: Path) -> None:
    text = """
        import signal
        try:
            torchnet.launch(sys.argv[1], quiet=True)
        except KeyboardInterrupt:
            print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    with program(tmp_path, text, arguments=(script(tmp_path, WAIT),)) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] ready", on="stdout")
        job.send(signal.SIGINT)
        done = job.finish()
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["ready", "stopped"]] * 2
    assert done.stdout.splitlines()[-1] == "interrupted True"


@pytest.mark.parametrize("network", [None, "loopback"])
def test_processes_that_another_thread_forks_during_the_start_delay_nothing(
    tmp_path: Path, network: str | None
) -> None:
    text = f"""
        import concurrent.futures, os, signal, time
        from torchnet.local import local_runtime  # before the forks, to fork during the start only
        pids = []
        with concurrent.futures.ThreadPoolExecutor() as pool:
            job = pool.submit(torchnet.launch, sys.argv[1], network={network!r})
            while not job.done() and len(pids) < 50:
                pids.append(os.fork())
                if not pids[-1]:
                    time.sleep(600)
                time.sleep(0.02)
            done = concurrent.futures.wait([job], 30).done
            print(len(done), flush=True)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
    """
    done = ended(tmp_path, text, arguments=(script(tmp_path, EXCHANGE),))
    assert done.stdout.splitlines()[-1] == "1", done.stderr


@pytest.mark.parametrize("network", [None, "loopback"])
def test_nothing_is_left_of_a_caller_that_is_killed(tmp_path: Path, network: str | None) -> None:
    """A process that the caller forked meanwhile holds copies of all its descriptors."""
    mark = uuid.uuid4().hex
    text = f"""
        import os, threading, time
        settings = {{"env": {{"TEST_JOB": {mark!r}}}, "network": {network!r}}}
        threading.Thread(target=torchnet.launch, args=sys.argv[1:], kwargs=settings, daemon=True).start()
        sys.stdin.readline()
        child = os.fork()
        if child:
            print(f"forked {{child}}", flush=True)
        time.sleep(600)
    """
    with program(tmp_path, text, arguments=(script(tmp_path, WAIT),), stdin=-1) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] ready", on="stdout")
        assert job.process.stdin
        job.process.stdin.write(b"\n")
        job.process.stdin.flush()
        job.wait_for("forked", on="stdout")
        job.send(signal.SIGKILL)
        job.process.wait()
        try:
            until(lambda: not any(marked(mark)), "all processes are gone", 5)
        finally:
            os.kill(int(job.text("stdout").rpartition("forked ")[2].split()[0]), signal.SIGKILL)


def test_files_with_the_names_of_modules_disturb_nothing(tmp_path: Path) -> None:
    for name in ("json.py", "socket.py", "signal.py", "torchnet.py", "ctypes.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    prints = script(tmp_path, "import os; print(sorted(name for name in os.environ if 'TORCHNET' in name))")
    text = "torchnet.launch(sys.argv[1], nnodes=1, quiet=True)"
    done = ended(tmp_path, text, arguments=(prints,), cwd=tmp_path)
    assert done.code == 0, done.stderr
    (names,) = lines(done.stdout, 0)
    assert names == lines(run("--nnodes", "1", prints).stdout, 0)[0]
