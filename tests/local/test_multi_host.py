"""A job whose command is started on each of two hosts: one job, one receipt, and the same exit codes everywhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.hosts import BACKEND, FRONTEND, NAMES, Hosts, finish, srun
from tests.jobs import receipt, script, until
from tests.namespaces import isolated

with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
KNOWN = f"{FRONTEND[0]} {NAMES[0]}\n"  # what the second host's hosts file says about the first
# Rank 1 sends for a while: the receipt of a host tells whose connections there were by looking at them.
TALK = """
    import os, socket, sys, time
    rank, address = os.environ["RANK"], os.environ["MASTER_ADDR"]
    print("I am", rank, "of", os.environ["WORLD_SIZE"], "at", address, flush=True)
    if os.environ["LOCAL_RANK"] != "0":
        sys.stdin.read()
        sys.exit()
    if rank == "0":
        server = socket.create_server((address, 7000))
        connection, _ = server.accept()
        while connection.recv(1 << 16):
            pass
    else:
        for _ in range(600):
            try:
                connection = socket.create_connection((address, 7000))
                break
            except OSError:
                time.sleep(0.05)
        for _ in range(8):
            connection.sendall(bytes(100_000))
            time.sleep(0.1)
        connection.close()
        sys.exit(int(sys.argv[1]))
"""
GLOO = """
    import os, time, torch, torch.distributed as dist
    dist.init_process_group("gloo")
    total = torch.full((1 << 16,), float(dist.get_rank() + 1))
    for _ in range(10):
        dist.all_reduce(total.clone())
        time.sleep(0.1)
    dist.all_reduce(total)
    print("sum", int(total[0]), "in", os.environ["TORCHELASTIC_RUN_ID"])
    dist.destroy_process_group()
"""
# The first attempt fails on the second host. Then rank 1 saves at the signal, and rank 0 takes its time.
INTERRUPTED = """
    import os, pathlib, signal, sys, time
    rank = os.environ["RANK"]
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        sys.exit(3) if rank == "1" else time.sleep(60)
    def save(*_):
        pathlib.Path("saved-" + rank).touch()
        if rank == "1":
            sys.exit()
    signal.signal(signal.SIGINT, save)
    if rank == "1":
        print("read", sys.stdin.readline().strip(), flush=True)
    pathlib.Path("ready-" + rank).touch()
    time.sleep(60)
"""
# Rank 0 leaves something behind; rank 1 has ended, or still trains.
LEAVES = """
    import os, pathlib, subprocess, sys, time
    rank = os.environ["RANK"]
    if rank == "0":
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    pathlib.Path("ended-" + rank).touch()
    if rank == "1" and sys.argv[1] == "yes":
        time.sleep(600)
"""
# Each rank saves at a signal, and says which it was.
SAVES = """
    import os, pathlib, signal, sys, time
    rank = os.environ["RANK"]
    def save(number, _):
        print("saved at", signal.Signals(number).name, flush=True)
        sys.exit()
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
        signal.signal(getattr(signal, name), save)
    pathlib.Path("ready-" + rank).touch()
    time.sleep(60)
"""
LOOKS_SECONDS = 3.0  # until torchnet has seen that ranks have ended, and waits for what they left behind


def both(hosts: Hosts, line: str, **variables: str) -> list[tuple[int, str, str]]:
    """Run a line on both hosts, with %d for the host's number."""
    started: list[subprocess.Popen[str]] = []
    for number in (0, 1):
        words = shlex.split(line.replace("%d", str(number)))
        started.append(hosts.start(number, words, hosts=KNOWN if number else "", **variables))
    return finish(started)


@with_torch
def test_one_line_on_two_hosts_is_one_job_with_one_receipt(tmp_path: Path) -> None:
    """The endpoint is a name on a frontend that admits TCP alone, and 127.0.1.1 on its own host."""
    script(tmp_path, GLOO, "train it.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        for number in (0, 1):
            hosts.within(number, f"ip rule add to {FRONTEND[0]}/24 ipproto udp prohibit")
        line = "torchnet launch --nnodes 2 --rdzv-backend c10d --rdzv-endpoint host-a:29401 --log-dir logs"
        (first, out, err), (second, other_out, other_err) = both(
            hosts, f"{line} --rdzv-id job-7 --json receipt.json --min-share 0.9 'train it.py'"
        )
        assert (first, second) == (0, 0), err + other_err
        assert (out, other_out) == ("[rank 0] sum 3 in job-7\n", "[rank 1] sum 3 in job-7\n")
        assert "torchnet: join: 2/2 joined\n" in err
        assert "torchnet: preflight: 2/2 paths at 1500 bytes\n" in err
        assert "backend share" not in other_err
        assert [text.count("TORCHNET_TOKEN is not set") for text in (err, other_err)] == [2, 0]
        for text, name in ((err, "host-a"), (other_err, "host-b")):
            assert re.search(rf"node \d of 2 \({name}\), 1 process: backend eth1 \(10.7.0.0/24\)", text)
            assert "not needed" not in text
            assert "cannot be retrieved" not in text  # the store looks up the name of each address
            (folder,) = re.findall(r"torchnet: (?:node \d: )?logs: (.*)", text)
            log = Path(folder, f"node-{NAMES.index(name)}", "attempt_0", "0", "stdout.log")
            assert log.read_text() == "sum 3 in job-7\n"
        found = receipt(tmp_path / "receipt.json")
        assert (found["run_id"], found["world_size"], found["network"]) == ("job-7", 2, "host")
        assert found["backend_share"] > 0.99, found
        assert [rail["interface"] for rail in found["rails"]] == ["eth1"]
        assert [node["node"] for node in found["nodes"]] == ["host-a", "host-b"]
        assert any("TORCHNET_TOKEN is not set" in text for text in found["findings"])

    run()


def test_one_card_a_filter_for_udp_and_a_script_that_fails(tmp_path: Path) -> None:
    script(tmp_path, TALK, "talk.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path, backend=False)
        for number in (0, 1):
            hosts.within(number, f"ip rule add to {FRONTEND[0]}/24 ipproto udp dport 29499 prohibit")
        line = "torchnet launch --nproc-per-node 2 --json receipt-%d.json talk.py 7"
        variables = {
            "PET_NNODES": "2",
            "PET_MASTER_ADDR": "host-a",
            "TORCHNET_TOKEN": "of this test",
            "TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json"),
        }
        started = [
            hosts.start(
                number,
                shlex.split(line.replace("%d", str(number))),
                hosts=KNOWN if number else "",
                PET_NODE_RANK=str(number),
                **variables,
            )
            for number in (0, 1)
        ]
        (first, out, err), (second, other_out, other_err) = finish(started)
        assert (first, second) == (7, 7), err + other_err
        lines = [f"[rank {rank}] I am {rank} of 4 at {FRONTEND[0]}" for rank in range(4)]
        assert sorted(out.splitlines()) == lines[:2]
        assert sorted(other_out.splitlines()) == lines[2:]
        for text, reader in ((err, 1), (other_err, 3)):
            assert f"rank {reader} reads its standard input, which is empty" in text
            assert "TORCHELASTIC_ERROR_FILE" not in text
            assert "does not answer, but TCP does" in text
            assert "error: rank 2 on host-b exited with code 7" in text
        assert "0/2 paths at 1500 bytes; all carry TCP" in err
        assert "one network: nothing to prove" in err
        assert "TORCHNET_TOKEN" not in err + other_err
        found = receipt(tmp_path / "receipt-0.json")
        assert (found["exit_code"], found["proof_reason"]) == (7, "one network: nothing to prove")
        assert (found["failure"]["rank"], found["failure"]["node"]) == (2, "host-b")
        assert not (tmp_path / "receipt-1.json").exists()

    run()


def test_a_host_that_does_not_come_is_named(tmp_path: Path) -> None:
    """On the host that is missing, others try: with another line, another token, and another endpoint (twice)."""

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = "torchnet launch --start-timeout 4 --no-python"
        elsewhere = f"{line} --nnodes 2 --master-addr 10.1.0.77 --node-rank"
        ended = finish(
            [
                *srun(hosts, f"{line} --json receipt.json true", only=0, TORCHNET_TOKEN="x"),
                *srun(hosts, f"{line} --nnodes 3 true", only=1, TORCHNET_TOKEN="x"),
                *srun(hosts, f"{line} true", only=1, TORCHNET_TOKEN="y"),
                *(
                    hosts.start(1, shlex.split(f"{elsewhere} {rank} true"), hosts=KNOWN, TORCHNET_TOKEN="x")
                    for rank in (0, 1)
                ),
            ]
        )
        assert [code for code, *_ in ended] == [124, 4, 124, 124, 124], ended
        err, stranger_err, liar_err, first_err, lost_err = [text for *_, text in ended]
        why = "host-b was started with --nnodes 3, node 0 with --nnodes 2"
        assert f"1 of 2 workers joined; missing: node rank 1 (host-b, refused: {why}); " in err
        assert "connections had a wrong token" in err
        for text in (err, stranger_err):
            assert why in text
        assert "its token is another job's, or it is not torchnet" in liar_err
        assert "this is node rank 0, but 10.1.0.77 is no address of this host" in first_err
        assert "host-b could not reach node 0 at 10.1.0.77:29500 within 4 s" in lost_err
        assert receipt(tmp_path / "receipt.json")["failure"]["kind"] == "timeout"

    run()


def test_a_restart_and_ctrl_c_on_one_host_reach_both(tmp_path: Path) -> None:
    script(tmp_path, INTERRUPTED, "train.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = "torchnet launch --nnodes 2 --rdzv-endpoint host-a:29402 --max-restarts 1 --grace 50"
        words = shlex.split(
            f"{line} --env NCCL_SOCKET_IFNAME=eth1 --stdin-rank 1 --json receipt.json train.py"
        )
        started = [
            hosts.start(number, words, hosts=KNOWN if number else "", TORCHNET_TOKEN="x") for number in (0, 1)
        ]
        assert started[1].stdin is not None
        print("go", file=started[1].stdin, flush=True)
        for name in ("ready", "saved"):
            until(
                lambda name=name: {f"{name}-0", f"{name}-1"} <= {one.name for one in tmp_path.iterdir()}, name
            )
            started[1].send_signal(signal.SIGTSTP)
            started[1].send_signal(signal.SIGINT)  # the second one kills rank 0, on the other host
        (first, _, err), (second, other_out, other_err) = finish(started, 25)
        assert (first, second) == (130, 130), err + other_err
        assert other_out == "[rank 1] read go\n"
        assert "backend eth1 (10.7.0.0/24), by NCCL_SOCKET_IFNAME; " in other_err
        assert "Ctrl-Z has no effect on a job of several hosts" in other_err
        assert "restart 1 of 1, because rank 1 on host-b exited with code 3" in err
        assert "press Ctrl-C again to kill them" in other_err
        found = receipt(tmp_path / "receipt.json")
        assert (found["restarts"], found["failure"]["kind"]) == (1, "interrupted")
        assert [one["exit_code"] for one in found["ranks"]] == [137, 0]

    run()


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [(0, signal.SIGTERM, 143), (1, signal.SIGHUP, 129), (1, signal.SIGUSR1, 138)],
)
def test_a_signal_to_one_host_reaches_the_ranks_of_both_as_itself(
    tmp_path: Path, where: int, number: signal.Signals, code: int
) -> None:
    """The second rank of each host is shown, and both are in files, as -r and -t say."""
    script(tmp_path, SAVES, "saves.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        words = shlex.split(
            "torchnet launch --nnodes 2 --nproc-per-node 2 --rdzv-endpoint host-a:29405 --json receipt.json "
            "--log-dir logs -r 0:1 -t 1:1 --signals-to-handle SIGTERM,SIGUSR1 saves.py"
        )
        started = [
            hosts.start(number, words, hosts=KNOWN if number else "", TORCHNET_TOKEN="x") for number in (0, 1)
        ]
        until(lambda: len([*tmp_path.glob("ready-*")]) == 4, "ready")
        started[where].send_signal(number)
        ended = finish(started, 25)
        said = f"saved at {number.name}\n"
        assert [one[:2] for one in ended] == [(code, f"[rank {rank}] {said}") for rank in (1, 3)], ended
        files = sorted(tmp_path.glob("logs/*/node-*/attempt_0/*/stdout.log"))
        assert [file.read_text() for file in files] == [said] * 4, files
        found = receipt(tmp_path / "receipt.json")
        assert (found["exit_code"], found["reason"]) == (code, f"stopped by {number.name}")
        assert [one["exit_code"] for one in found["ranks"]] == [0] * 4

    run()


@pytest.mark.parametrize(
    ("trains", "where", "number", "code"),
    [
        ("no", 1, signal.SIGINT, 0),  # on the host without leftovers
        ("no", 0, signal.SIGTERM, 0),
        ("yes", 0, signal.SIGINT, 130),  # it ends the job, not only what this host's rank has left behind
        ("yes", 1, signal.SIGTERM, 143),
        ("yes", None, None, 124),
    ],
)
def test_a_stop_ends_what_is_left_behind_only_after_all_ranks(
    tmp_path: Path, trains: str, where: int | None, number: signal.Signals | None, code: int
) -> None:
    script(tmp_path, LEAVES, "leaves.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        words = shlex.split(
            "torchnet launch --nnodes 2 --rdzv-endpoint host-a:29404 --grace 20 "
            f"--timeout {30 if number else 2 * LOOKS_SECONDS} leaves.py {trains}"
        )
        started = [
            hosts.start(number, words, hosts=KNOWN if number else "", TORCHNET_TOKEN="x") for number in (0, 1)
        ]
        until(lambda: {"ended-0", "ended-1"} <= {one.name for one in tmp_path.iterdir()}, "ends")
        time.sleep(LOOKS_SECONDS)
        if number is not None and where is not None:
            started[where].send_signal(number)
        ended = finish(started, 25)
        assert [one[0] for one in ended] == [code, code], ended

    run()


@with_torch
def test_the_benchmark_under_srun(tmp_path: Path) -> None:
    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = "torchnet bench all-reduce --network host:eth1 --json results-$SLURM_NODEID.json -e 4K --seconds 0.05"
        (first, out, err), (second, other_out, other_err) = finish(
            srun(hosts, f"{line} --tcp-seconds 0.1", TORCHNET_TOKEN="x")
        )
        assert (first, second) == (0, 0), err + other_err
        assert "2 nodes, 2 ranks on their own hosts" in out
        assert (other_out, (tmp_path / "results-1.json").exists()) == ("", False)
        found = json.loads((tmp_path / "results-0.json").read_text())
        assert (found["setup"]["on"], found["setup"]["interface"]) == ("hosts", "eth1")
        assert found["complete"]
        assert [node["addresses"] for node in found["nodes"]] == [{"eth1": one} for one in BACKEND]
        assert "wrong-interface" not in [one["kind"] for one in found["findings"]]

    run()


def test_the_verification_under_srun_and_several_tasks(tmp_path: Path) -> None:
    """Without default routes, only the other host knows which interface leads to the endpoint: node 0's rails count."""

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path, rails=2)
        for number in (0, 1):
            hosts.within(number, "ip route del default")
        (first, out, err), (second, other_out, other_err), *tasks = finish(
            [
                *srun(hosts, "torchnet verify -o json", TORCHNET_TOKEN="x"),
                *srun(hosts, "torchnet verify", tasks=2, only=1, TORCHNET_TOKEN="x"),
            ]
        )
        assert (first, second, other_out) == (0, 0, ""), err + other_err
        found = json.loads(out)
        assert found["result"] == "ok"
        assert [(one["name"], one["evidence"]) for one in found["checks"]] == [
            ("hosts", "2/2 joined: host-a, host-b"),
            ("paths", "6/6 paths at 1500 bytes"),
        ]
        rails = "eth0 (10.1.0.0/24), eth1 (10.7.0.0/24), eth2 (10.8.0.0/24)"
        for text, how in ((err, "chosen automatically;"), (other_err, "chosen as on node 0;")):
            assert "one job on the 2 hosts of Slurm step 12.0, which meet at host-a:" in text
            assert f"backend {rails}, {how}" in text
        for code, _, text in tasks:
            assert code == 2
            assert "srun --ntasks-per-node 1 torchnet verify …" in text

    run()


def test_two_nodes_on_one_machine_as_people_try_a_line(tmp_path: Path) -> None:
    script(tmp_path, TALK, "talk.py")

    @isolated
    def run() -> None:
        hosts = Hosts(tmp_path)
        line = shlex.split("torchnet launch --nnodes 2 --no-prefix --rdzv-endpoint localhost:29403 talk.py 0")
        ended = sorted(finish([hosts.start(0, line), hosts.start(0, line)]), key=lambda one: one[1])
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert [out.partition(" at ")[0] for _, out, _ in ended] == [
            "I am 0 of 2",
            "I am 1 of 2",
        ]
        assert all("all 2 nodes run on this one, on loopback: nothing is proved" in err for *_, err in ended)
        assert "backend share unknown: loopback" in ended[0][2]

    run()
