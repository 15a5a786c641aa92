"""Pods by hand: the zip alone, two containers one after the other, an API server or given addresses, no launcher."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.api_contract import status
from tests.api_server import FORBIDDEN
from tests.containers import ETH0, NET1, Pods, ended, served
from tests.dns_server import DnsServer
from tests.jobs import until
from tests.namespaces import ip, isolated
from torchnet.constants import INDEX_LABEL, POD_IP_VARIABLE, RUN_LABEL


def static(pods: Pods, rank: int, address: str = "") -> None:
    given = address or NET1[rank]
    pods.flags = ("--address-source", f"static:net1={given}/64", "--rank0", NET1[0])


def prepared(pods: Pods) -> None:
    running = []
    for rank in (0, 1):
        static(pods, rank)
        running.append(pods.begin(rank, "prepare"))
    codes = ended(running)
    assert [code for code, *_ in codes] == [0, 0], codes


@isolated
def test_two_containers_each_and_four_questions_in_all(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    with served(pods) as server:
        for rank, (code, out, err) in enumerate(pods.phase("prepare")):
            assert (code, out) == (0, ""), err
            assert "joined" not in err
            assert re.search(r"^torchnet: torchnet's own time: \d\.\d{3} s\n\Z", err, re.MULTILINE)
            told = pods.message(rank, "prepare")
            assert (told["node"], told["phase"], told["code"], told["failure"]) == (
                f"run-{rank}",
                "prepare",
                0,
                None,
            )
        # Each for itself.
        asked = sorted(line.partition("?")[0].rpartition("/ml/")[2] for line in server.state.asked)
        assert asked == ["pods/run-0-x", "pods/run-1-x"]
        assert server.state.connections == 2
        worked = pods.phase("work", "a b", "$(x)")
        # And rank 1 for rank 0, whose labels are its own but for the rank.
        asked = sorted(line.partition("?")[0].rpartition("/ml/")[2] for line in server.state.asked)
        assert asked == ["pods", "pods/run-0-x", "pods/run-1-x", "pods/run-1-x"]
        assert server.state.connections == 3
    for rank, (code, out, err) in enumerate(worked):
        work = pods.place(rank) / "work"
        assert code == 0, err
        assert out == f"[{rank}] unpacked {work} {NET1[0]} /tmp a b $(x)\n"
        assert "/etc/hosts" not in err
        assert ("2/2 paths at 1500 bytes" in err) == (rank == 0)
        hosts = (pods.place(rank) / "state" / "hosts").read_text()
        assert hosts == "127.0.0.1\tlocalhost\n"  # the peers' lines have gone with the job
        told = pods.message(rank, "work")
        assert (told["code"], told["receipt"]["codes"]) == (0, {str(rank): 0})
        assert (told["job"] is None) == (rank == 1)


@isolated
def test_what_the_kernel_and_the_flags_tell_is_not_asked(tmp_path: Path) -> None:
    """As the launcher's pods are: one question each, whose answer is a pod's metadata."""
    pods = Pods(tmp_path)
    pods.attachment, pods.flags = "ml/net@net1", ("--rank0-labels", f"{RUN_LABEL}=run,{INDEX_LABEL}=0")
    with served(pods) as server:
        for phase in ("prepare", "work"):
            for code, _, err in pods.phase(phase):
                assert code == 0, err
        asked = sorted(line.partition("?")[0].rpartition("/ml/")[2] for line in server.state.asked)
        assert asked == ["pods", "pods/run-0-x"]


@isolated
def test_pods_in_their_hosts_network_meet_at_rank_0s_pod_and_train_over_the_named_network(
    tmp_path: Path,
) -> None:
    pods = Pods(tmp_path)
    pods.flags = ("--network", "host:fd00:7::/64", "--rank0-labels", f"{RUN_LABEL}=run,{INDEX_LABEL}=0")
    with served(pods) as server:
        running = []
        for rank, address in enumerate(ETH0):
            labels = {RUN_LABEL: "run", INDEX_LABEL: str(rank)}
            server.put("ml", f"run-{rank}-x", labels, {}, address=address)
        for code, _, err in pods.phase("prepare"):
            assert code == 0, err
        assert server.state.asked == []
        for rank, address in enumerate(ETH0):
            pods.environ[POD_IP_VARIABLE] = address
            running.append(pods.begin(rank, "work"))
        for code, out, err in ended(running):
            assert code == 0, err
            assert f" {NET1[0]} " in out
        asked = {line.partition("?")[0].rpartition("/ml/")[2] for line in server.state.asked}
        assert asked == {"pods"}


def named(pods: Pods, rank: int, told: str) -> None:
    """A pod as the launcher makes it: rank 0 has a name, and the pod's own annotations are in a volume."""
    volume = pods.place(rank) / "status"
    volume.mkdir(exist_ok=True)
    (volume / "network-status").write_text(told)
    (volume / "networks").write_text("ml/net@net1")
    pods.attachment = "ml/net@net1"
    pods.environ = {POD_IP_VARIABLE: ETH0[rank]}
    pods.flags = ("--status-dir", str(volume), "--rank0-names", "run,run-0.run,_join._tcp.run")
    pods.resolv_conf = pods.folder / "resolv.conf"
    pods.resolv_conf.write_text(f"search ml.svc.example.org\nnameserver {ETH0[0]}\n")


@isolated
def test_pods_without_a_right_on_the_api_find_rank_0_by_its_name(tmp_path: Path) -> None:
    """Its name comes after the worker has asked for it; and network-status after the preparation."""
    pods = Pods(tmp_path)
    for rank in (1, 0):
        named(pods, rank, "")
        ((code, _, err),) = pods.phase("prepare", of=(rank,))
        assert code == 0, err
    with DnsServer(ETH0[0], 53) as server:
        running = []
        for rank in (1, 0):  # they read what the volume has by now
            named(pods, rank, status(NET1[rank], ETH0[rank]))
            running.append(pods.begin(rank, "work"))
        until(lambda: bool(server.names.asked), "a question")
        server.names.addresses["run.ml.svc.example.org"] = [ETH0[0]]
        server.names.addresses["run-0.run.ml.svc.example.org"] = [ETH0[0]]
        for code, out, err in ended(running):
            assert code == 0, err
            assert f" {NET1[0]} " in out


@isolated
def test_a_status_that_contradicts_the_kernel_is_refused_before_the_script_starts(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    named(pods, 0, "")
    ((code, _, err),) = pods.phase("prepare", of=(0,))
    assert code == 0, err
    named(pods, 0, status("fd00:7::99"))
    ((code, out, err),) = pods.phase("work", of=(0,))
    assert (code, out) == (4, "")
    assert "network-status has fd00:7::99, but the kernel has" in err


@isolated
def test_without_a_name_server_the_error_names_it(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    named(pods, 1, "")
    pods.flags = (*pods.flags, "--start-timeout", "1")
    ((code, _, err),) = pods.phase("prepare", of=(1,))
    assert code == 0, err
    ((code, _, err),) = pods.phase("work", of=(1,))
    assert code == 124, err
    assert f"name server {ETH0[0]}: Connection refused; the API server is not asked" in err


@isolated
def test_where_the_kernel_leaves_a_doubt_the_own_pod_is_asked_for(tmp_path: Path) -> None:
    """A second address: network-status says which one is meant, which is not the one that Gloo would take."""
    pods = Pods(tmp_path)
    pods.attachment, pods.flags = "ml/net@net1", ("--rank0-labels", f"{RUN_LABEL}=run,{INDEX_LABEL}=0")
    with pods.far:
        ip("address add fd00:7::99/64 dev net1 nodad")
    with served(pods) as server:
        ((code, _, err),) = pods.phase("prepare", of=(1,))
        assert code == 4
        assert "several global addresses" in err
        assert f"network-status has {NET1[1]}" in err
        assert [line.rpartition("/")[2] for line in server.state.asked] == ["run-1-x"]


@isolated
def test_a_failing_rank_ends_all_and_all_tell_it(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    prepared(pods)
    for rank, (code, out, err) in enumerate(pods.phase("work", "fail")):
        assert code == 42, err
        assert ("[1!] what went wrong\n" in out) == (rank == 1)
        assert "torchnet: rank 1 on run-1 exited with code 42\n" in err
        told = pods.message(rank, "work")
        assert (told["code"], told["failure"]["rank"], told["failure"]["node"]) == (42, 1, "run-1")
    assert pods.message(0, "work")["job"]["exit_code"] == 42


@isolated
def test_sigterm_is_told_at_once_and_ends_all(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    prepared(pods)
    running = [pods.begin(rank, "work", "hang") for rank in (0, 1)]
    marks = [pods.place(rank) / "work" / "hangs" for rank in (0, 1)]
    until(lambda: all(mark.exists() for mark in marks), "both scripts hang")
    running[1].send_signal(signal.SIGTERM)
    for rank, (code, _, err) in enumerate(ended(running)):
        assert code == 143, err
        assert "torchnet: stopped by SIGTERM\n" in err
        told = pods.message(rank, "work")
        assert (told["code"], told["failure"]["kind"]) == (143, "interrupted")


@isolated
def test_an_address_that_the_kernel_lacks_is_refused_with_both(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    static(pods, 0, "fd00:7::9")
    ((code, _, err),) = pods.phase("prepare", of=(0,))
    assert code == 4
    assert "--address-source has fd00:7::9, but the kernel has fd00:7::1/64" in err
    assert "fd00:7::9" in pods.message(0, "prepare")["failure"]["text"]


@isolated
def test_without_rights_the_exit_code_is_3(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    with served(pods, FORBIDDEN) as server:
        for rank, (code, _, err) in enumerate(pods.phase("prepare")):
            assert code == 3
            assert f"get pods run-{rank}-x in namespace ml: 403" in err
            assert "Traceback" not in err
            assert pods.message(rank, "prepare")["code"] == 3
        assert len(server.state.asked) <= 20
