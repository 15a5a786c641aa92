"""``torchnet receipt`` around commands on two hosts, which are network namespaces of the test."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.namespaces import Space, cable, isolated
from tests.training import needs_torch
from torchnet.linux import namespaces

MB = 1_000_000
BACKEND, FRONTEND = ("10.10.0.1", "10.10.0.2"), ("192.168.7.1", "192.168.7.2")
# Accepts connections and reads them to their ends, so many as its argument says.
SERVER = """
import socket, sys
server = socket.create_server(("", 7000))
for _ in range(int(sys.argv[1])):
    connection, _ = server.accept()
    while connection.recv(1 << 16):
        pass
    connection.close()
"""
# Sends bytes to addresses: ADDRESS=COUNT. The connections stay open for a while, so that their owner is seen.
CLIENT = """
import socket, sys, time
for word in sys.argv[2:]:
    address, _, count = word.partition("=")
    for attempt in range(100):
        try:
            connection = socket.create_connection((address, 7000), 10)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    connection.sendall(bytes(int(count)))
    time.sleep(float(sys.argv[1]))
    connection.close()
"""
TRAIN = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
tensor = torch.ones(500_000)
for _ in range(10):
    dist.all_reduce(tensor)
dist.barrier()
if dist.get_rank() == 0:
    sys.stdout.buffer.write(b"sum\\0\\xff\\r\\n")
dist.destroy_process_group()
"""


def two_hosts() -> Space:
    far = Space()
    cable("ens5", "ens5", far, addresses=((f"{BACKEND[0]}/16", f"{BACKEND[1]}/16"),))
    cable("eth0", "eth0", far, addresses=((f"{FRONTEND[0]}/24", f"{FRONTEND[1]}/24"),))
    return far


def start(
    name: str, space: Space | None, flags: Sequence[str], command: Sequence[str], **more: Any
) -> subprocess.Popen[bytes]:
    """Start ``torchnet receipt FLAGS -- COMMAND`` on a host; its descriptors and variables are this process's."""

    def enter() -> None:
        if space is not None:
            namespaces.setns(space.descriptor, namespaces.NEWNET)
        namespaces.unshare(namespaces.NEWUTS)
        socket.sethostname(name)

    words = [sys.executable, "-m", "torchnet", "receipt", *flags, "--", *command]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, preexec_fn=enter, **{**pipes, **more})  # noqa: PLW1509


def both(
    folder: Path, server: Sequence[str], client: Sequence[str], *flags: str
) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Run a command on each host; their receipts, and what the client's host printed on standard error."""
    far = two_hosts()
    files = [folder / "a.json", folder / "b.json"]
    one = start("a", None, [*flags, "--json", str(files[0])], server)
    two = start("b", far, [*flags, "--json", str(files[1])], client)
    _, said = two.communicate(timeout=60)
    _, first = one.communicate(timeout=60)
    assert (one.returncode, two.returncode) == (0, 0), first + said
    first_receipt, second_receipt = (json.loads(path.read_bytes()) for path in files)
    return first_receipt, second_receipt, said


def merged(folder: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "torchnet", "receipt", "merge", "--json", "-", "a.json", "b.json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


@isolated
def test_a_leak_is_named_and_lowers_the_share() -> None:
    folder = Path(tempfile.mkdtemp())
    client = python(CLIENT, "0.6", f"{BACKEND[0]}={8 * MB}", f"{FRONTEND[0]}={2 * MB}")
    _, alone, said = both(folder, python(SERVER, "2"), client, "--network", "host:10.10.0.0/16")
    # The host alone does not know whose address the other interface reached.
    assert alone["proof"] == "inferred"
    assert alone["backend_share"] <= 0.801
    assert alone["backend_share_high"] == 1.0
    receipt = merged(folder)
    assert (receipt["proof"], receipt["nnodes"]) == ("measured", 2)
    assert abs(receipt["backend_share"] - 0.8) < 0.002
    assert abs(receipt["backend_share_high"] - 0.8) < 0.002
    leaks = [leak for node in receipt["nodes"] for leak in node["leaks"]]
    assert {(leak["peer"], leak["interface"], leak["port"]) for leak in leaks} == {
        ("a", "eth0", 7000),
        ("b", "eth0", 7000),
    }
    assert all(abs(leak["sent_bytes"] + leak["received_bytes"] - 2 * MB) < 10 for leak in leaks)
    assert FRONTEND[0].encode() in said


@isolated
def test_named_peers_and_another_process_between_the_same_hosts() -> None:
    folder = Path(tempfile.mkdtemp())
    server = python(SERVER, "2")
    stranger = subprocess.Popen(python(SERVER.replace("7000", "7001"), "1"))
    # A process outside of the command sends as much over the other interface.
    outside = python(CLIENT.replace("7000", "7001"), "1.5", f"{FRONTEND[0]}={3 * MB}")
    far = two_hosts()
    flags = ["--network", "host:ens5", "--peers", f"{FRONTEND[0]},{FRONTEND[1]}", "--json"]
    one = start("a", None, [*flags, str(folder / "a.json")], server)
    with far:
        other = subprocess.Popen(outside)
    client = python(CLIENT, "0.8", f"{BACKEND[0]}={8 * MB}", f"{BACKEND[0]}={MB}")
    two = start("b", far, [*flags, str(folder / "b.json")], client)
    for process in (two, one, other, stranger):
        process.communicate(timeout=60)
    alone = json.loads((folder / "b.json").read_bytes())
    assert (alone["backend_share"], alone["backend_share_high"]) == (1.0, 1.0)
    assert alone["proof"] == "inferred"
    assert merged(folder)["proof"] == "measured"


@isolated
def test_a_route_over_another_interface_than_the_addresses_say() -> None:
    """UDP on the rail hides from its counters that the connection is not there."""
    folder = Path(tempfile.mkdtemp())
    udp = """
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(3000):
    sender.sendto(bytes(1400), ("10.10.0.77", 9))
"""
    sends = CLIENT.replace("import socket, sys, time", f"import socket, sys, time{udp}")
    neighbour = "ip neigh add 10.10.0.77 lladdr 02:00:00:00:00:77 dev ens5"
    route = f"ip route add {BACKEND[0]}/32 dev eth0 src {BACKEND[1]}"
    client = [
        "sh",
        "-c",
        f'{neighbour}; {route}; exec "$@"',
        "sh",
        *python(sends, "0.6", f"{BACKEND[0]}={2 * MB}"),
    ]
    # Without a check of the source address, the host answers over the other interface.
    unchecked = "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done"
    server = ["sh", "-c", f'{unchecked}; exec "$@"', "sh", *python(SERVER, "1")]
    both(folder, server, client, "--network", "host:ens5")
    receipt = merged(folder)
    assert receipt["proof"] == "inferred"
    assert receipt["backend_share"] <= 0.4  # truth: 0, but the receiving host cannot tell


@isolated
def test_connections_that_end_at_once_lower_the_lower_bound_alone() -> None:
    folder = Path(tempfile.mkdtemp())
    client = python(CLIENT, "0", *([f"{FRONTEND[0]}=20000"] * 50), f"{BACKEND[0]}={MB}")
    client[2] += "\ntime.sleep(0.5)"
    both(folder, python(SERVER, "51"), client, "--network", "host:ens5")
    receipt = merged(folder)
    assert receipt["backend_share"] <= 0.51
    assert receipt["backend_share_high"] >= 0.49


@isolated
def test_the_command_runs_as_it_would_by_itself() -> None:
    two_hosts()
    script = """
import os, signal, sys
print(sorted(open("/proc/self/environ", "rb").read().split(b"\\0")), os.getpgrp(), flush=True)
ignored = open("/proc/self/status").read().partition("SigIgn:")[2].split()[0]
ignored = int(ignored, 16) & 0x7FFFFFFF  # glibc's posix_spawn ignores its internal signals, 32 and 33
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), ignored, flush=True)
sys.stdout.buffer.write(b"\\0\\xff\\r no end")
sys.stderr.buffer.write(b"\\xfe")
sys.exit(int(sys.stdin.read()))
"""
    env = {"PATH": os.environ["PATH"], "A": "1", "LC_ALL": "", "LANG": "C"}
    plain = subprocess.run(python(script), input=b"37", capture_output=True, env=env, check=False)
    near = start("a", None, (), python(script), stdin=subprocess.PIPE, env=env)
    out, err = near.communicate(b"37", timeout=60)
    assert (near.returncode, out) == (37, plain.stdout)
    assert err.startswith(plain.stderr)
    assert b"exited with code 37" in err


@isolated
def test_signals_and_failures_to_start() -> None:
    two_hosts()
    script = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1\\n"))  # print may be running
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
    near = start("a", None, (), python(script))
    assert near.stdout is not None
    assert near.stdout.readline() == b"ready\n"
    near.send_signal(signal.SIGUSR1)
    assert near.stdout.readline() == b"usr1\n"
    near.send_signal(signal.SIGTERM)
    near.communicate(timeout=60)
    assert near.returncode == 9
    killed = start("a", None, (), ["sh", "-c", "kill -KILL $$"])
    killed.communicate(timeout=60)
    assert killed.returncode == 128 + signal.SIGKILL
    for words, flags, code in (
        (["/no/such"], (), 127),
        (["/"], (), 126),
        (["true"], ("--network", "host:ens9"), 4),
        (["true"], ("--network", "host:a/b"), 2),
        (["true"], ("--json", "-"), 2),
        ([], (), 2),
    ):
        refused = start("a", None, flags, words)
        out, _ = refused.communicate(timeout=60)
        assert (refused.returncode, out) == (code, b""), (words, flags)


@isolated
def test_a_terminal_interrupts_the_command_once() -> None:
    two_hosts()
    script = """
import signal, sys, time
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
print("ready", flush=True)
time.sleep(1); time.sleep(1)
sys.exit(len(count))
"""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "torchnet", "receipt", "--", *python(script)])
    while b"ready" not in os.read(terminal, 100):
        pass
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # EIO: the last process has closed the terminal
        while os.read(terminal, 1000):
            continue
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@needs_torch
@isolated
def test_around_torchrun() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "train.py").write_text(TRAIN)
    far = two_hosts()

    def torchrun(number: int) -> list[str]:
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *(f"--node-rank={number}", f"--master-addr={BACKEND[0]}", "--master-port=29411"),
            str(folder / "train.py"),
        ]

    env = {**os.environ, "GLOO_SOCKET_IFNAME": "ens5", "OMP_NUM_THREADS": "1"}
    hosts = [
        start(
            name,
            space,
            ["--network", "host:ens5", "--json", str(folder / f"{name}.json")],
            torchrun(number),
            env=env,
        )
        for number, (name, space) in enumerate((("a", None), ("b", far)))
    ]
    ends = [host.communicate(timeout=200) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], ends
    assert [out for out, _ in ends] == [b"sum\0\xff\r\n", b""]
    receipt = merged(folder)
    assert receipt["backend_share"] >= 0.999
    assert receipt["proof"] == "measured"
    assert all(node["peer_bytes"] > 10 * MB for node in receipt["nodes"])
