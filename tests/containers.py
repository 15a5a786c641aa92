"""Containers of two pods that somebody made by hand: the agent's zip alone, no kubelet, no launcher."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.api_contract import status
from tests.api_server import GOOD, Server
from tests.archive import make
from tests.namespaces import Space, cable
from torchnet.constants import API_DIR, INDEX_LABEL, RUN_LABEL, STATUS_ANNOTATION
from torchnet.linux import namespaces

NET1, ETH0 = ("fd00:7::1", "fd00:7::2"), ("fd00:8::1", "fd00:8::2")
SCRIPT = """
import os, signal, sys, time
from part.of_it import WORD
# What came along with the agent can be imported, after whatever is installed.
assert sys.path[-1].endswith("/torchnet.zip"), sys.path
assert os.path.isfile(sys.path[-1])
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
        self.resolv_conf: Path | None = None
        self.flags: tuple[str, ...] = ()
        self.attachment = "ml/net"
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
                namespaces.setns(self.far.descriptor, namespaces.NEWNET)
            namespaces.unshare(namespaces.NEWNS)
            hosts = place / "state" / "hosts" if work else place / "hosts"
            namespaces.mount(str(hosts), os.path.realpath("/etc/hosts"), flags=namespaces.MS_BIND)
            if self.resolv_conf:
                file = os.path.realpath("/etc/resolv.conf")
                namespaces.mount(str(self.resolv_conf), file, flags=namespaces.MS_BIND)
            if self.account:
                namespaces.mount("none", "/run", "tmpfs")
                os.makedirs("/run/secrets/kubernetes.io")
                os.symlink(self.account, API_DIR)

        flags = ["--nnodes", "2", "--run-id", "run", "--start-timeout", "20", "--attachment", self.attachment]
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": "/none",
            "TORCHNET_TOKEN": "of this test",
            "JOB_COMPLETION_INDEX": str(rank),
            "POD_UID": f"uid-{rank}",
            "POD_NAME": f"run-{rank}-x",
            "POD_NAMESPACE": "ml",
            **self.environ,
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


@contextlib.contextmanager
def served(pods: Pods, token: str = GOOD) -> Iterator[Server]:
    """The pods' API server, at eth0 of the first, with their status in it; their account has this token."""
    (pods.folder / "api").mkdir()
    with Server(pods.folder / "api", ETH0[0]) as server:
        for rank, address in enumerate(NET1):
            labels = {RUN_LABEL: "run", INDEX_LABEL: str(rank)}
            server.put("ml", f"run-{rank}-x", labels, {STATUS_ANNOTATION: status(address, ETH0[rank])})
        pods.account = server.account(token)
        pods.environ = {"KUBERNETES_SERVICE_HOST": server.host, "KUBERNETES_SERVICE_PORT": str(server.port)}
        yield server
