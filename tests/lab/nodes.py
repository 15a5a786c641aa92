"""The lab's nodes: a user-mode-linux kernel each, with a server that runs commands there."""

from __future__ import annotations

import json
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import daemons
from tests.cluster.addons import ROOT
from tests.cluster.places import (
    CP_ADDRESS,
    FABRIC,
    NODES,
    RUN,
    SERVICES,
    namespace_file,
    node_address,
    pod_range,
)
from tests.cluster.shell import ClusterFailure, wait_until
from tests.lab import fabric
from tests.lab import versions as v
from tests.lab.node_server import PORT

MEMORY = "2500M"  # taken only as it is used
INIT = Path(__file__).with_name("init.sh")


@dataclass(frozen=True)
class Answer:
    """How a command on a node ended."""

    code: int
    stdout: str
    stderr: str


class Node:
    """A node that is up. It is reached from the control plane's network, where the lab's process is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def boot(self) -> None:
        """Start the kernel; `wait` until it answers, some 2 s later."""
        words = [v.KERNEL, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro", "quiet"]
        words += [f"init={INIT}", f"uml_dir={RUN}", f"umid={self.name}", "con=null", "con0=fd:0,fd:1"]
        for index, interface in enumerate(("eth0", "ens5")):
            mtu = ",mtu=9000" if interface == "ens5" else ""
            card = f"ifname={fabric.tap(self.name, interface)},mac={fabric.mac(self.name, interface)}"
            words.append(f"vec{index}:transport=tap,{card},depth=128{mtu}")
        words += [f"node={self.name}", f"address={node_address(self.name)}", f"modules={v.MODULES}"]
        words += [f"folder={ROOT}", f"python={sys.executable}"]
        daemons.start(self._process, "nsenter", f"--net={namespace_file(FABRIC)}", *words)

    def wait(self) -> None:
        try:
            wait_until(f"{self.name} to boot", 60, self._answers, 0.1)
        except ClusterFailure as failure:
            raise ClusterFailure(f"{failure}\n{daemons.log(self._process)[-3000:]}") from None
        self.run("ip", "route", "add", "default", "via", CP_ADDRESS)
        self.run("ip", "route", "add", SERVICES, "via", CP_ADDRESS)
        for node in NODES:
            if node != self.name:
                self.run("ip", "route", "add", pod_range(node), "via", node_address(node))
        self.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")

    def stop(self) -> None:
        """Pull the plug."""
        daemons.stop(self._process, signal.SIGKILL)

    def ask(self, *command: str | Path, timeout: float = 60, **more: Any) -> Answer:
        """Run a command there, also one that fails."""
        words = [str(word) for word in command]
        return self._ask({"argv": words, "timeout": timeout, **more}, timeout + 30)

    def run(self, *command: str | Path, timeout: float = 60, **more: Any) -> str:
        """The command's standard output; ClusterFailure where it ends with another code than 0."""
        answer = self.ask(*command, timeout=timeout, **more)
        if answer.code:
            said = (answer.stderr.strip() or answer.stdout.strip())[-4000:]
            raise ClusterFailure(
                f"{self.name}: code {answer.code} from {' '.join(map(str, command))}\n{said}"
            )
        return answer.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self._ask({"path": path, "text": text, "mode": mode}, 30)

    @property
    def _process(self) -> str:
        return f"{self.name}-kernel"

    def _answers(self) -> bool:
        if daemons.pid(self._process) is None:
            raise ClusterFailure("its kernel has ended")
        return self._ask({"argv": ["true"]}, 5).code == 0

    def _ask(self, request: dict[str, Any], timeout: float) -> Answer:
        try:
            with socket.create_connection((node_address(self.name), PORT), timeout) as connection:
                # A node that is gone says nothing at all.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (
                    (socket.TCP_KEEPIDLE, 20),
                    (socket.TCP_KEEPINTVL, 5),
                    (socket.TCP_KEEPCNT, 8),
                ):
                    connection.setsockopt(socket.IPPROTO_TCP, option, value)
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile() as stream:
                    line = stream.readline()
            return Answer(**json.loads(line))
        except (OSError, ValueError) as error:
            raise ClusterFailure(f"{self.name} does not answer: {error}") from None
