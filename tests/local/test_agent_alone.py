"""`torchnet agent` by hand: two machines, a cable, no launcher; from the package, and from one zip alone."""

from __future__ import annotations

import ipaddress
import json
import marshal
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.agents_by_hand import OTHERS, start_pair
from tests.archive import make
from tests.conftest import ROOT
from tests.jobs import script
from tests.namespaces import Space, cable, isolated

TALK = """
    import os, socket, sys, time
    rank, hangs = os.environ["RANK"], sys.argv[1:] == ["hang"]
    def wait_for_the_other(connection):
        connection.recv(1)
    if rank == "0":
        server = socket.create_server((os.environ["MASTER_ADDR"], 7000), family=socket.AF_INET6)
        connection, _ = server.accept()
        count = 0
        while count < 1_000_000:
            count += len(connection.recv(1 << 16))
    else:
        for _ in range(200):
            try:
                connection = socket.create_connection(("machine-0", 7000))
                break
            except OSError:
                time.sleep(0.05)
        connection.sendall(bytes(1_000_000))
    time.sleep(0.5)  # whose a connection is, is seen while it is open: others use a host's network, too
    print("talked over", os.environ["GLOO_SOCKET_IFNAME"], flush=True)
    if hangs:
        wait_for_the_other(connection)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("zip") / "agent.zip")


def test_the_archive_is_small_enough_for_a_configmap(archive: Path) -> None:
    assert archive.stat().st_size <= 288 * 1024
    names = zipfile.ZipFile(archive).namelist()
    assert "torchnet/agent/sitecustomize/sitecustomize.py" in names
    assert not [
        name for name in names if name.startswith(("torchnet/cli", "torchnet/config", "torchnet/console"))
    ]


def pair(
    folder: Path, archive: Path | None, *words: object, hosts_file: str = "hosts-{rank}"
) -> list[tuple[int, str, str]]:
    """Run a job of two workers, each with an eth1 and an /etc/hosts of its own: (code, stdout, stderr) of each."""
    agents = start_pair(folder, *words, archive=archive, hosts_file=hosts_file)
    said = [agent.communicate(timeout=90) for agent in agents]
    # The machine's own hosts file is as it was.
    found = [(folder / hosts_file.format(rank=rank)).read_text() for rank in (0, 1)]
    assert found == ["127.0.0.1 localhost\n"] * 2
    return [(agent.returncode, *texts) for agent, texts in zip(agents, said, strict=True)]


def receipt(stderr: str) -> dict[str, Any]:
    (line,) = re.findall(r"^torchnet: receipt: (.*)$", stderr, re.MULTILINE)
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("form", ["package", "zip"])
def test_a_whole_job_of_two_agents(form: str, archive: Path, tmp_path: Path) -> None:
    _whole(tmp_path, archive if form == "zip" else None)


@isolated
def _whole(folder: Path, archive: Path | None) -> None:
    first, second = pair(folder, archive, script(folder, TALK))
    for rank, (code, out, err) in enumerate((first, second)):
        assert code == 0, err
        assert out == f"[{rank}] talked over eth1\n"
    assert "torchnet: join: 2/2 joined\n" in first[2]
    assert "torchnet: preflight: 2/2 paths at 1500 bytes\n" in first[2]
    assert "torchnet: receipt: " not in second[2]
    found = receipt(first[2])
    assert (found["runtime"], found["network"]) == ("agent", "host")
    assert (found["backend_share"], found["proof"], found["exit_code"]) == (1, "measured", 0)
    assert [node["node"] for node in found["nodes"]] == ["machine-0", "machine-1"]
    assert found["nodes"][1]["peers"][0]["sent_bytes"] == pytest.approx(1_000_000, abs=2)
    assert found["findings"] == []


UPGRADE = """
    import sys, time
    time.sleep(2)
    open(sys.argv[1], "wb").close()
"""


def test_an_upgrade_in_the_middle_of_a_training_changes_nothing(tmp_path: Path) -> None:
    _upgraded(tmp_path, make(tmp_path / "agent.zip"))


@isolated
def _upgraded(folder: Path, archive: Path) -> None:
    first, second = pair(folder, archive, script(folder, UPGRADE), archive)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert receipt(first[2])["exit_code"] == 0


@pytest.mark.parametrize("exported", ["eth2", ""])
def test_an_exported_nccl_socket_ifname_is_backend(
    exported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", exported)
    _on_eth2(tmp_path, exported)


@isolated
def _on_eth2(folder: Path, exported: str) -> None:
    talk = TALK.replace('os.environ["MASTER_ADDR"], 7000', f'"{OTHERS[0]}", 7000').replace(
        '"machine-0"', f'"{OTHERS[0]}"'
    )
    first, _ = pair(folder, None, script(folder, talk))
    assert first[0] == 0, first[2]
    found = receipt(first[2])
    rails = {rail["interface"]: rail["peer_bytes"] for rail in found["rails"]}
    if exported:
        assert (found["backend_share"], set(rails)) == (1, {"eth1", "eth2"})
        assert rails["eth2"] == pytest.approx(2_000_000, abs=10)
        assert "eth2 counts as backend, too" in first[2]
    else:
        assert (found["backend_share_high"], set(rails)) == (0, {"eth1"})


def test_a_machines_own_hosts_file_is_left_alone_and_rank_0_names_the_lines_to_add(tmp_path: Path) -> None:
    _own_hosts_file(tmp_path)
    _slow_names(tmp_path)


def silent_name_server() -> socket.socket:
    """The machine's name server, in this network, which never answers."""
    found = re.search(r"^nameserver\s+([0-9a-fA-F.:]+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    address = ipaddress.ip_address(found[1] if found else "127.0.0.1")
    if not address.is_loopback:
        subprocess.run(["ip", "address", "add", str(address), "dev", "lo"], check=True)
    server = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind((str(address), 53))
    return server


@isolated
def _own_hosts_file(folder: Path) -> None:
    program = script(folder, "print('trained')")
    first, second = pair(folder, None, program, hosts_file="machine-{rank}/etc/hosts")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "/etc/hosts" not in first[2] + second[2], "nobody waits for a name"


@isolated
def _slow_names(folder: Path) -> None:
    program = script(folder, "print('trained')")
    with silent_name_server():
        first, second = pair(folder, None, program, hosts_file="machine-{rank}/etc/hosts")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    warning = first[2][first[2].index("torchnet: /etc/hosts is this machine's own") :].splitlines()
    assert "up to 5 s per connection" in warning[0]
    assert warning[1:3] == ["torchnet:   fd00:7::1 machine-0", "torchnet:   fd00:7::2 machine-1"]
    assert "/etc/hosts" not in second[2]
    words = ["--address-source", "host:eth1", "--nnodes", "1", str(program)]
    alone = subprocess.run(
        [sys.executable, "-m", "torchnet", "agent", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("trained" in alone.stdout, "/etc/hosts" in alone.stderr) == (True, False), alone.stderr


def test_stacks_come_from_inside_of_the_zip(archive: Path, tmp_path: Path) -> None:
    """The module that writes them stands in the zip, too, and is found by the training process."""
    _stacks(tmp_path, archive)


@isolated
def _stacks(folder: Path, archive: Path | None) -> None:
    words = ("--stall-timeout", "2", "--stall-action", "stop", script(folder, TALK), "hang")
    (code, _, err), (other, _, _) = pair(folder, archive, *words)
    assert (code, other) == (124, 124), err
    assert "torchnet: stalled: " in err
    for rank in (0, 1):
        stack = err[err.index(f"rank {rank}:\n") :].splitlines()[1:3]
        assert "in wait_for_the_other" in stack[0]
        assert "in <module>" in stack[1]


@isolated
def test_sigquit_stops_a_job_in_order(tmp_path: Path) -> None:
    """Images such as nginx's have STOPSIGNAL SIGQUIT."""
    agents = start_pair(tmp_path, script(tmp_path, TALK), "hang")
    assert agents[1].stdout is not None
    while "talked" not in agents[1].stdout.readline():
        assert agents[1].poll() is None
    agents[1].send_signal(signal.SIGQUIT)
    said = [agent.communicate(timeout=30)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [131, 131], said
    assert receipt(said[0])["reason"] == "stopped by SIGQUIT"


def test_the_zip_needs_nothing_that_is_installed(archive: Path) -> None:
    code = (
        "import sys, torchnet.agent.command_line\n"
        "print(*{m.__file__.partition('agent.zip')[1] for n, m in sys.modules.items()"
        " if n.partition('.')[0] == 'torchnet'}, *{'site', 'pyroute2'} & {*sys.modules})"
    )
    environment = {"PYTHONPATH": str(archive), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=archive.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "agent.zip\n"


@isolated
def test_a_preparation_leaves_the_bytecode_of_what_it_needed(archive: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(archive),
        "agent",
        "--phase",
        "prepare",
        "--state",
        str(tmp_path),
        "--run-id",
        "r",
    ]
    words += ["--nnodes", "2", "--node-rank", "1", "--address-source", "host:net1"]
    # Neither the job's token nor rank 0's address: it joins nobody.
    environment = {"PATH": os.environ["PATH"]}
    cable("net1", "net1", Space(), addresses=(("fd00::1/64", "fd00::2/64"),))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, codes = marshal.loads((tmp_path / "bytecode").read_bytes())
    assert "torchnet.agent.discovery" in codes
    assert "torchnet.agent.worker" not in codes, "the training container compiles what only that needs"
