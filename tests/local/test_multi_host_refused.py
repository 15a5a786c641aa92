"""Hosts of a job that do not fit together: what each of them says, and how soon."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.hosts import FRONTEND, NAMES, Hosts, finish
from tests.jobs import until
from tests.namespaces import isolated

KNOWN = f"{FRONTEND[0]} {NAMES[0]}\n"  # what the second host's hosts file says about the first
LINE = "torchnet launch --nnodes 2 --rdzv-endpoint host-a --no-python true"
LISTEN = "import socket, time\nserver = socket.create_server(('', 29400))\nprint('listens', flush=True)\ntime.sleep(60)"


def start(hosts: Hosts, number: int, line: str, **variables: str) -> subprocess.Popen[str]:
    known = KNOWN if number else ""
    return hosts.start(number, shlex.split(line), hosts=known, TORCHNET_TOKEN="x", **variables)


def both(hosts: Hosts, line: str, **variables: str) -> list[tuple[int, str, str]]:
    return finish([start(hosts, number, line, **variables) for number in (0, 1)])


def test_a_host_without_an_address_on_the_backend_is_named(tmp_path: Path) -> None:
    """It does not use its frontend instead, and no command leads the frontend's traffic to the backend."""

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        hosts.within(1, "ip address flush dev eth1")
        ended = both(hosts, LINE)
        assert [code for code, *_ in ended] == [4, 4], ended
        why = "host-b has no interface in node 0's backend 10.7.0.0/24 (eth1: no address)"
        assert all(why in err and "ip route" not in err for *_, err in ended), ended
        # Nothing shows that another name means the same network, so that the paths are checked.
        for command in ("link set eth1 down", "link set eth1 name ens9", "link set ens9 up"):
            hosts.within(1, f"ip {command}")
        ended = both(hosts, LINE)
        assert [code for code, *_ in ended] == [4, 4], ended
        assert "not used: ens9 (no address); none is in node 0's 10.7.0.0/24" in ended[1][2]
        for *_, err in ended:
            assert "the route leaves through eth0 with source 10.1.0.1, not through eth1" in err
            assert "fix: name one network for all hosts: --network host:NETWORK/LENGTH" in err
            assert "ip route" not in err

    run()


def test_cards_that_are_down_and_variables_that_name_all_rails(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        for *_, err in both(hosts, LINE, NCCL_SOCKET_IFNAME="eth", GLOO_SOCKET_IFNAME="eth1,eth0"):
            assert "backend eth0 (10.1.0.0/24), eth1 (10.7.0.0/24), by NCCL_SOCKET_IFNAME; " in err
            assert "keeps your value" not in err
        hosts.within(0, "ip link set eth1 down")
        for code, _, err in both(hosts, LINE):
            assert code == 0
            assert "backend eth0 (10.1.0.0/24), chosen automatically; not used: eth1 (down); " in err

    run()


def test_two_nodes_on_one_machine_by_its_name(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        began = time.monotonic()
        line = "torchnet launch --nnodes 2 --master-addr host-a --no-python --node-rank"
        ended = finish([start(hosts, 0, f"{line} {number} true") for number in (0, 1)])
        assert time.monotonic() - began < 60  # the start time-out is 300 s
        assert [code for code, *_ in ended] == [4, 4], ended
        for *_, err in ended:
            assert "cannot open port 29499: Address already in use; most likely another node or job" in err
            assert "fix: for two nodes on one machine, --rdzv-endpoint localhost:PORT, or one launch" in err

    run()


def test_another_program_on_the_port_of_the_rendezvous(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        other = hosts.start(0, ["python", "-c", LISTEN])
        assert other.stdout is not None
        assert other.stdout.readline() == "listens\n"
        ((code, _, err),) = finish([start(hosts, 0, LINE)])
        other.kill()
        other.communicate()
        assert code == 4, err
        assert "host-a cannot open port 29400 for the rendezvous: Address already in use" in err
        assert "ss -lntup 'sport = :29400'" in err

    run()


def test_a_host_that_is_refused(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = f"{LINE.replace('launch', 'launch --start-timeout 4')}"
        (first, _, err), (second, _, other_err) = finish(
            [start(hosts, 0, line), start(hosts, 1, line.replace("--nnodes", "--nproc-per-node 2 --nnodes"))]
        )
        assert (first, second) == (124, 4)
        why = "host-b starts 2 processes, node 0 starts 1: torchnet runs the same number on each host"
        assert f"missing: node rank 1 (refused: {why})" in err
        assert why in other_err
        assert "  fix: --nproc-per-node 1 on host-b, or 2 on the others" in other_err

    run()


@pytest.mark.parametrize("number", [0, 1])
def test_ctrl_c_before_the_start(tmp_path: Path, number: int) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        # A process that does not handle the signal yet would end without a word.
        started = start(hosts, number, LINE)
        status = Path(f"/proc/{started.pid}/status")

        def handles() -> bool:
            (mask,) = [text for text in status.read_text().splitlines() if text.startswith("SigCgt")]
            return bool(int(mask.split()[1], 16) >> signal.SIGTERM - 1 & 1)

        until(handles, "a handler")
        time.sleep(0.5)
        started.send_signal(signal.SIGINT)
        ((code, _, err),) = finish([started])
        assert code == 130
        assert "stopped by SIGINT" in err
        assert "the processes have" not in err
        if number:
            assert "torchnet: stopped by SIGINT before the start\n" in err

    run()


def test_the_verification_names_a_missing_host_once(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = "torchnet verify --start-timeout 2 --nnodes 2 --rdzv-endpoint host-a"
        ((code, out, err),) = finish([start(hosts, 0, line)])
        assert code == 124
        assert "FAIL  hosts: timed out after 2 s: 1 of 2 workers joined; missing: node rank 1\n" in out
        assert "fix: start the same line on each host" in out
        assert "timed out" not in err

    run()
