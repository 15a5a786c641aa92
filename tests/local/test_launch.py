"""What a script finds where torchnet puts it: variables, names, addresses, rights, files, arguments."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Ended, lines, run, script

NODES, EACH = 2, 2
ARGUMENTS = ("--help", "--", "a b", "x\ny", "é中\u202e", "", "--nnodes=9", "-m", "$(id) %s {}", "\udcff")
STRANGER = 54322  # a user and group that no process of this has

LOOK = """
    import array, fcntl, json, os, socket, struct, sys

    def ipv4(name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            asked = struct.pack("256s", name.encode())
            return socket.inet_ntoa(fcntl.ioctl(sock, 0x8915, asked)[20:24])  # SIOCGIFADDR

    def ipv6(name):
        with open("/proc/net/if_inet6") as file:
            found = [line.split() for line in file]
        return [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])) for words in found
                if words[5] == name and not words[0].startswith("fe80")]

    def status(*names):
        with open("/proc/self/status") as file:
            found = dict(line.rstrip("\\n").split(":\\t", 1) for line in file)
        return {name: found[name] for name in names}

    with open(f"made-by-{os.environ['RANK']}", "w"):
        pass
    print(json.dumps({
        "env": dict(os.environ),
        "argv": [os.fsencode(word).decode("latin-1") for word in sys.argv[1:]],
        "hostname": socket.gethostname(),
        "hosts": open("/etc/hosts").read(),
        "named": [socket.gethostbyaddr(a)[0] for a in
                  ("172.30.1.1", "172.30.1.2", "fcbb:0:800:ffff::1", "fcbb:0:800:ffff::2")],
        "net": {name: open(f"/sys/class/net/{name}/address").read().strip()
                for name in os.listdir("/sys/class/net")},
        "eth0": ipv4("eth0"),
        "net1": ipv6("net1"),
        "mtu": int(open("/sys/class/net/net1/mtu").read()),
        "rights": status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
        "uids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups()],
        "cwd": os.getcwd(),
        "owner": [os.stat("strange").st_uid, os.stat("strange").st_gid],
        "stdin": os.readlink("/proc/self/fd/0"),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "shm": os.listdir("/dev/shm"),
        "files": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    }))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="module")
def ended(folder: Path) -> Ended:
    """One launch, from a folder with a strange name, in which a file of a stranger lies."""
    place = folder / "a b\n'c' é"
    place.mkdir()
    (place / "strange").touch()
    if os.geteuid() == 0:
        os.chown(place / "strange", STRANGER, STRANGER)
    look = script(place, LOOK)
    arguments = (
        "--nnodes",
        str(NODES),
        "--nproc_per_node",
        str(EACH),
        "--run-id",
        "seen",
        look.name,
        *ARGUMENTS,
    )
    return run(*arguments, cwd=place, env={"HOME": str(place), "RANK": "7", "MASTER_ADDR": "10.0.0.1"})


@pytest.fixture(scope="module")
def seen(ended: Ended) -> list[dict[str, Any]]:
    """What each rank saw."""
    assert ended.code == 0, ended.stderr
    return [json.loads(lines(ended.stdout, rank)[0]) for rank in range(NODES * EACH)]


def test_each_rank_has_torchruns_variables(seen: list[dict[str, Any]]) -> None:
    for rank, saw in enumerate(seen):
        node, local = divmod(rank, EACH)
        expected = {
            "RANK": rank,
            "WORLD_SIZE": NODES * EACH,
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": EACH,
            "GROUP_RANK": node,
            "GROUP_WORLD_SIZE": NODES,
            "NODE_RANK": node,
            "ROLE_NAME": "default",
            "ROLE_RANK": rank,
            "ROLE_WORLD_SIZE": NODES * EACH,
            "TORCHELASTIC_RUN_ID": "seen",
            "TORCHELASTIC_RESTART_COUNT": 0,
            "TORCHELASTIC_MAX_RESTARTS": 0,
            "TORCHELASTIC_USE_AGENT_STORE": "False",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": 1,
            "OMP_NUM_THREADS": 1,
        }
        assert {name: saw["env"].get(name) for name in expected} == {n: str(v) for n, v in expected.items()}
        assert 29501 <= int(saw["env"]["MASTER_PORT"]) <= 29599
    assert len({saw["env"]["MASTER_PORT"] for saw in seen}) == 1
    # An error file of its own for each process, on a file system of its own for each node.
    for node in range(NODES):
        assert len({saw["env"]["TORCHELASTIC_ERROR_FILE"] for saw in seen[node * EACH :][:EACH]}) == EACH


def test_each_rank_is_led_to_the_backend(seen: list[dict[str, Any]]) -> None:
    for rank, saw in enumerate(seen):
        assert saw["env"]["MASTER_ADDR"] == "fcbb:0:800:ffff::1"
        assert saw["env"]["GLOO_SOCKET_IFNAME"] == "net1"
        assert saw["env"]["NCCL_SOCKET_IFNAME"] == "=net1"
        assert saw["env"]["NCCL_SOCKET_FAMILY"] == "AF_INET6"
        assert saw["env"]["NCCL_NET"] == "Socket"
        assert saw["env"]["NCCL_HOSTID"] == f"seen-{rank // EACH}"


def test_stale_variables_are_replaced_with_a_warning(ended: Ended, seen: list[dict[str, Any]]) -> None:
    warned = re.findall(
        "^torchnet: .*replaced from your environment.*RANK, MASTER_ADDR$", ended.stderr, re.MULTILINE
    )
    assert len(warned) == NODES, ended.stderr  # each worker speaks for itself
    assert [saw["env"]["RANK"] for saw in seen] == ["0", "1", "2", "3"]


def test_each_node_has_a_name_and_knows_the_others(seen: list[dict[str, Any]]) -> None:
    for rank, saw in enumerate(seen):
        assert saw["hostname"] == f"node-{rank // EACH}"
        for line in (
            "fcbb:0:800:ffff::1\tnode-0",
            "fcbb:0:800:ffff::2\tnode-1",
            "172.30.1.2\tnode-1-frontend",
        ):
            assert f"{line}\t# torchnet '{saw['env']['TORCHELASTIC_RUN_ID']}'" in saw["hosts"].splitlines()
        # Its own frontend address is first of all the host's name, as in a pod.
        own = rank // EACH
        named = [f"node-{node}" + ("" if node == own else "-frontend") for node in range(NODES)]
        assert saw["named"] == [*named, "node-0", "node-1"]


def test_each_node_has_two_interfaces_and_no_other(seen: list[dict[str, Any]]) -> None:
    for rank, saw in enumerate(seen):
        node = rank // EACH
        assert saw["eth0"] == f"172.30.1.{node + 1}"
        assert saw["net1"] == [f"fcbb:0:800:ffff::{node + 1}"]
        assert saw["mtu"] == 9000
        # Loaded modules put their tunnels into every namespace, without a real address.
        links = {name: mac for name, mac in saw["net"].items() if re.fullmatch(r"(\w\w:){5}\w\w", mac)}
        links = {name: mac for name, mac in links.items() if mac != "00:00:00:00:00:00" or name == "lo"}
        assert links == {
            "lo": "00:00:00:00:00:00",
            "eth0": f"02:e0:00:00:00:0{node}",
            "net1": f"02:fc:bb:00:00:0{node}",
        }


def test_a_node_sees_its_own_processes_alone(seen: list[dict[str, Any]]) -> None:
    for saw in seen:
        assert saw["processes"][0] == 1
        assert len(saw["processes"]) <= 1 + EACH + 1  # the agent, the ranks, and one that just ends
        assert [name for name in saw["shm"] if not name.startswith("torchnet-")] == []


def test_scripts_have_no_rights_beyond_their_users(seen: list[dict[str, Any]]) -> None:
    for saw in seen:
        assert saw["rights"].pop("NoNewPrivs") == "1"
        # Root keeps its rights over files, which no exec passes on to others.
        files = f"{0b11111 if os.geteuid() == 0 else 0:016x}"
        assert set(saw["rights"].values()) <= {"0" * 16, files}
        mine = [os.getuid(), os.geteuid(), os.getgid(), os.getegid()]
        assert saw["uids"][:4] == mine
        if os.geteuid() == 0:
            assert sorted(saw["uids"][4:]) == sorted(os.getgroups())


def test_files_folders_and_owners_stay_as_they_are(seen: list[dict[str, Any]], folder: Path) -> None:
    place = folder / "a b\n'c' é"
    for rank, saw in enumerate(seen):
        assert saw["cwd"] == saw["env"]["HOME"] == str(place)
        made = (place / f"made-by-{rank}").stat()
        assert (made.st_uid, made.st_gid) == (os.geteuid(), os.getegid())
        if os.geteuid() == 0:
            assert saw["owner"] == [STRANGER, STRANGER]


def test_scripts_inherit_no_descriptors_of_torchnets(seen: list[dict[str, Any]]) -> None:
    # The standard three, the memory that stacks are written to, and the directory being listed.
    assert all(len(saw["files"]) <= 5 for saw in seen), [saw["files"] for saw in seen]
    assert {saw["stdin"] for saw in seen} == {"/memfd:stdin (deleted)"}


def test_arguments_arrive_as_they_were_typed(seen: list[dict[str, Any]]) -> None:
    typed = [os.fsencode(word).decode("latin-1") for word in ARGUMENTS]
    assert all(saw["argv"] == typed for saw in seen)
