"""Pods by hand: the zip alone, two containers one after the other, an API server or given addresses, no launcher."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api_server import FORBIDDEN, Server
from tests.archive import make
from tests.conftest import Result
from tests.namespaces import Space, cable, isolated
from torchnet.agent.api import ACCOUNT
from torchnet.kernel import syscalls
from torchnet.names import STATUS_ANNOTATION
from torchnet.network.status import StatusEntry, render

NET1, ETH0 = ("fd00:7::1", "fd00:7::2"), ("fd00:8::1", "fd00:8::2")
INDEX = "batch.kubernetes.io/job-completion-index"
SCRIPT = """
import os, signal, sys, time
from part.of_it import WORD
# What came along with the agent can be imported, after whatever is installed.
assert sys.path[-1].endswith("/state/agent"), sys.path
assert os.path.isfile(sys.path[-1] + "/torchnet/training/__init__.py")
print(WORD, os.getcwd(), os.environ["MASTER_ADDR"], os.environ["HOME"], *sys.argv[1:], flush=True)
if sys.argv[1:] == ["fail"] and os.environ["RANK"] == "1":
    print("what went wrong", file=sys.stderr)
    sys.exit(42)
if sys.argv[1:] == ["hang"]:
    open("hangs", "w").close()
    time.sleep(60)
"""


class Pods:
    """Two pods on one machine: each has net1 (a cable), eth0, and files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = make(folder / "torchnet.zip")
        self.far = Space()
        for name, (near, other) in (("net1", NET1), ("eth0", ETH0)):
            cable(name, name, self.far, addresses=((f"{near}/64", f"{other}/64"),))
        with zipfile.ZipFile(folder / "code.zip", "w") as file:
            file.writestr("train.py", SCRIPT)
            file.writestr("part/of_it.py", "WORD = 'unpacked'\n")
        self.environ: dict[str, str] = {}
        self.account: Path | None = None
        self.flags: tuple[str, ...] = ()
        for rank in (0, 1):
            for name in ("state", "work"):
                (self.place(rank) / name).mkdir(parents=True)
            (self.place(rank) / "hosts").write_text("127.0.0.1\tlocalhost\n")

    def place(self, rank: int) -> Path:
        return self.folder / f"pod-{rank}"

    def start(self, rank: int, *words: str, command: str = "agent") -> subprocess.Popen[str]:
        """A container of pod ``rank`` with these words."""
        place = self.place(rank)
        work = words[:2] == ("--phase", "work")

        def enter() -> None:
            if rank:
                syscalls.setns(self.far.descriptor, syscalls.NEWNET)
            syscalls.unshare(syscalls.NEWNS)
            hosts = place / "state" / "hosts" if work else place / "hosts"
            syscalls.mount(str(hosts), os.path.realpath("/etc/hosts"), flags=syscalls.MS_BIND)
            if self.account and not work:
                syscalls.mount("none", "/run", "tmpfs")
                os.makedirs("/run/secrets/kubernetes.io")
                os.symlink(self.account, ACCOUNT)

        flags = ["--nnodes", "2", "--run-id", "run", "--start-timeout", "20", "--attachment", "ml/net"]
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": "/none",
            "TORCHNET_TOKEN": "of this test",
            "JOB_COMPLETION_INDEX": str(rank),
            "POD_UID": f"uid-{rank}",
            **({} if work else {"POD_NAME": f"run-{rank}-x", "POD_NAMESPACE": "ml", **self.environ}),
        }
        return subprocess.Popen(
            [sys.executable, "-S", str(self.archive), command, *words[:2], *flags, *self.flags, *words[2:]],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            preexec_fn=enter,  # noqa: PLW1509  # one thread
        )

    def phase(self, name: str, *words: str, of: tuple[int, ...] = (0, 1)) -> list[tuple[int, str, str]]:
        """Both pods' containers of this phase: (code, stdout, stderr) of each."""
        return ended([self.begin(rank, name, *words) for rank in of])

    def begin(self, rank: int, name: str, *words: str) -> subprocess.Popen[str]:
        place = self.place(rank)
        code = ("--code", str(self.folder / "code.zip")) if name == "prepare" else ()
        (place / f"{name}.json").touch()
        flags = ("--phase", name, "--state", str(place / "state"), *code, "--workdir", str(place / "work"))
        log = ("--termination-log", str(place / f"{name}.json"))
        script = ("train.py", *words) if name == "work" else ()
        return self.start(rank, *flags, *log, *script)

    def message(self, rank: int, name: str) -> dict[str, Any]:
        text = (self.place(rank) / f"{name}.json").read_text()
        assert len(text) <= 4096
        told: dict[str, Any] = json.loads(text)
        return told


def ended(running: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    said = [one.communicate(timeout=60) for one in running]
    return [(one.returncode, *texts) for one, texts in zip(running, said, strict=True)]


def served(pods: Pods, server: Server, token: str = "") -> None:
    """The pods find the API server at eth0, and their status in it."""
    for rank, address in enumerate(NET1):
        status = render(
            (StatusEntry("cilium", "eth0", (ETH0[rank],)), StatusEntry("ml/net", "net1", (address,)))
        )
        server.put(
            "ml", f"run-{rank}-x", {"torchnet/run": "run", INDEX: str(rank)}, {STATUS_ANNOTATION: status}
        )
    pods.account = server.account(token) if token else server.account()
    pods.environ = {"KUBERNETES_SERVICE_HOST": server.host, "KUBERNETES_SERVICE_PORT": str(server.port)}


def static(pods: Pods, rank: int, address: str = "") -> None:
    given = address or NET1[rank]
    pods.flags = ("--address-source", f"static:net1={given}/64", "--rank0", NET1[0])


def test_two_containers_each_and_three_questions_in_all(tmp_path: Path) -> None:
    _two_containers(tmp_path)


@isolated
def _two_containers(folder: Path) -> None:
    pods = Pods(folder)
    (folder / "api").mkdir()
    with Server(folder / "api", ETH0[0]) as server:
        served(pods, server)
        for rank, (code, out, err) in enumerate(pods.phase("prepare")):
            assert (code, out) == (0, ""), err
            assert ("2/2 paths at 1500 bytes" in err) == (rank == 0)
            assert re.search(r"^torchnet: torchnet's own time: \d\.\d{3} s\n\Z", err, re.MULTILINE)
            told = pods.message(rank, "prepare")
            assert (told["node"], told["phase"], told["code"], told["failure"]) == (
                f"run-{rank}",
                "prepare",
                0,
                None,
            )
        # Each for itself, and rank 1 for rank 0: whatever the number of workers, two at most.
        asked = sorted(line.partition("?")[0].rpartition("/ml/")[2] for line in server.state.asked)
        assert asked == ["pods", "pods/run-0-x", "pods/run-1-x"]
        assert server.state.connections == 2
    # The server is gone: the work needs none.
    for rank, (code, out, err) in enumerate(pods.phase("work", "a b", "$(x)")):
        work = pods.place(rank) / "work"
        assert code == 0, err
        assert out == f"[{rank}] unpacked {work} {NET1[0]} /tmp a b $(x)\n"
        assert "not writable" not in err
        assert ("the same as in the preparation" in err) == (rank == 0)
        told = pods.message(rank, "work")
        assert (told["code"], told["receipt"]["codes"]) == (0, {str(rank): 0})
        assert (told["job"] is None) == (rank == 1)


def test_a_failing_rank_ends_all_and_all_tell_it(tmp_path: Path) -> None:
    _fails(tmp_path)


@isolated
def _fails(folder: Path) -> None:
    pods = Pods(folder)
    prepared(pods)
    for rank, (code, out, err) in enumerate(pods.phase("work", "fail")):
        assert code == 42, err
        assert ("[1!] what went wrong\n" in out) == (rank == 1)
        assert "torchnet: rank 1 on run-1 exited with code 42\n" in err
        told = pods.message(rank, "work")
        assert (told["code"], told["failure"]["rank"], told["failure"]["node"]) == (42, 1, "run-1")
    assert pods.message(0, "work")["job"]["exit_code"] == 42


def prepared(pods: Pods) -> None:
    running = []
    for rank in (0, 1):
        static(pods, rank)
        running.append(pods.begin(rank, "prepare"))
    codes = ended(running)
    assert [code for code, *_ in codes] == [0, 0], codes


def test_sigterm_is_told_at_once_and_ends_all(tmp_path: Path) -> None:
    _terminated(tmp_path)


@isolated
def _terminated(folder: Path) -> None:
    pods = Pods(folder)
    prepared(pods)
    running = [pods.begin(rank, "work", "hang") for rank in (0, 1)]
    deadline = time.monotonic() + 30
    while not all((pods.place(rank) / "work" / "hangs").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    for rank, (code, _, err) in enumerate(ended(running)):
        assert code == 143, err
        assert "torchnet: stopped by SIGTERM\n" in err
        told = pods.message(rank, "work")
        assert (told["code"], told["failure"]["kind"]) == (143, "interrupted")


def test_an_address_that_the_kernel_lacks_is_refused_with_both(tmp_path: Path) -> None:
    _other_address(tmp_path)


@isolated
def _other_address(folder: Path) -> None:
    pods = Pods(folder)
    static(pods, 0, "fd00:7::9")
    ((code, _, err),) = pods.phase("prepare", of=(0,))
    assert code == 4
    assert "--address-source says fd00:7::9, the kernel has fd00:7::1/64" in err
    assert "fd00:7::9" in pods.message(0, "prepare")["failure"]["text"]


def test_without_rights_the_exit_code_is_3(tmp_path: Path) -> None:
    _forbidden(tmp_path)


@isolated
def _forbidden(folder: Path) -> None:
    pods = Pods(folder)
    (folder / "api").mkdir()
    with Server(folder / "api", ETH0[0]) as server:
        served(pods, server, FORBIDDEN)
        for rank, (code, _, err) in enumerate(pods.phase("prepare")):
            assert code == 3
            assert f"get pods run-{rank}-x in namespace ml: 403" in err
            assert "Traceback" not in err
            assert pods.message(rank, "prepare")["code"] == 3
        assert len(server.state.asked) <= 20


def test_the_environment_alone(tmp_path: Path) -> None:
    _environment(tmp_path)


@isolated
def _environment(folder: Path) -> None:
    pods = Pods(folder)
    (folder / "api").mkdir()
    with Server(folder / "api", ETH0[0]) as server:
        served(pods, server)
        words = ("--nproc-per-node", "2", "--local-rank", "1")
        ((code, out, err),) = ended([pods.start(1, *words, command="env")])
        assert code == 0, err
        lines = out.splitlines()
        for line in ("RANK='3'", "WORLD_SIZE='4'", f"MASTER_ADDR='{NET1[0]}'", "GLOO_SOCKET_IFNAME='net1'"):
            assert f"export {line}" in lines
        assert all(line.startswith("export ") for line in lines)
        assert "no worker was joined" in err
        server.state.pods.clear()
        ((code, out, err),) = ended([pods.start(1, "--start-timeout", "1", command="env")])
        assert (code, out) == (3, "false\n")


def test_the_environment_of_a_machine_of_ones_own(torchnet: Callable[..., Result]) -> None:
    words = ("--address-source", "host:lo", "--nnodes", "3", "--node-rank", "2", "--rank0", "10.0.0.1")
    done = torchnet("env", *words, "--run-id", "it's $(x)")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert "export MASTER_ADDR='10.0.0.1'" in lines
    assert "export TORCHELASTIC_RUN_ID='it'\\''s $(x)'" in lines
    assert "export RANK='2'" in lines
    failed = torchnet("env", "--address-source", "host:none7")
    assert (failed.code, failed.stdout) == (4, "false\n")
    assert torchnet("env", "--local-rank", "1", "--address-source", "host:lo").code == 2
    assert torchnet("env", "--explain").code == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--phase", "work", "x.py"), "--phase work needs a folder for the state"),
        (("--phase", "work", "--state", "/none", "x.py"), "/none/state.json: No such file"),
        (("--phase", "all"), "no script is named"),
        (("--phase", "prepare", "--state", "/tmp", "--code", "/none.zip"), "/none.zip: No such file"),
        (("--address-source", "static:net1", "x.py"), 'address source "static:net1"'),
        (("--workdir", "/none", "x.py"), "--workdir /none: No such file"),
    ],
)
def test_what_cannot_be_is_told_on_both_ways(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-m", "torchnet", "agent", "--termination-log", str(log), *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert why in done.stderr
    told = json.loads(log.read_text())
    assert (told["code"], told["failure"]["kind"]) == (2, "usage")
    assert why in told["failure"]["text"]
