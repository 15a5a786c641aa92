"""A backend that fails or is not what it should be, on real nodes: named in time, and never replaced by eth0."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

import pytest

from tests.cluster import addons
from tests.cluster.concurrency import concurrent
from tests.cluster.faults import address, cable_cut, in_network, mtu, packets_lost, within
from tests.cluster.launched import Launched, by_hand, impatient, never_started, pods, rank_of, rendered
from tests.cluster.launcher import Launcher
from tests.jobs import until
from tests.scripts import RAN, TALK
from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION


@pytest.fixture
def namespace(module_namespace: str) -> str:
    return module_namespace  # for those with a fault of a node, which leave it as it was


@concurrent
def test_a_worker_without_net1_is_refused(launcher: Launcher) -> None:
    """Row 10: eth0, which is there, is no way out."""
    with Launched(launcher, "row10", RAN, held=(1,)) as job:
        in_network(job.holder(1), "ip", "link", "delete", "net1")
        job.release(1)
        done = job.finish()
    assert done.code == 4, done.stderr
    assert re.search("row10-1: net1 .*no such interface", done.stderr), done.stderr
    assert "nothing was started; exit code 4" in done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


@concurrent
def test_a_pod_that_asks_for_no_net1_is_refused(launcher: Launcher) -> None:
    """Row 10 again, in pods by hand: nobody stops rank 0 but its own time-out."""
    objects = rendered(launcher, RAN, "--run-id", "row10")
    impatient(objects, 12)
    (bare,) = [one for one in objects if one["kind"] == "Pod" and one["metadata"]["name"] == "row10-1"]
    del bare["metadata"]["annotations"][NETWORKS_ANNOTATION]
    with by_hand(launcher, objects) as job:
        done = job.finish()
        assert done.code == 4, done.stderr
        assert re.search(
            "row10-1: network-status has no entry for .*/backend-network@net1; it has primary", done.stderr
        )
        assert never_started(pods(launcher, "row10"))
        assert "ran" not in done.stdout


@pytest.mark.parametrize(
    ("range_", "length", "said"),
    [
        ("fcbb:0:800:eeee::/64", 64, "row11-[01]: net1.*duplicate address detection failed for fcbb:0:800:eeee::5/64"),
        ("10.77.0.0/24", 24, "rank 0 and row11-1 .*same address 10.77.0.5|10.77.0.5 belongs to .*row11-1"),
    ],
    ids=["IPv6", "IPv4"],
)  # fmt: skip
@concurrent
def test_one_address_for_two_workers(launcher: Launcher, range_: str, length: int, said: str) -> None:
    """Row 11: given twice, as a wrong list or an ipam with a pool for each node does."""
    name = f"static{length}"
    given = ("--ipam", "static", "--range", range_, "--name", name)
    launcher.cluster.kubectl("apply", "-f", "-", input=addons.attachment(launcher.namespace, *given))
    base = range_.partition("/")[0].removesuffix("0") if length == 24 else range_.partition("/")[0]
    first, second = f"{base}5", f"{base}6"
    words = ("--run-id", "row11", "--static-ips", f"{first}-{second}/{length}")
    text = json.dumps(rendered(launcher, RAN, *words, network=name))
    objects = json.loads(text.replace(f"{second}/", f"{first}/"))
    impatient(objects, 10)
    with by_hand(launcher, objects) as job:
        done = job.finish()
        assert done.code == 4, done.stderr
        assert re.search(said, done.stderr), done.stderr
        assert never_started(pods(launcher, "row11"))


# What whoever may write a pod's annotations can write there: an entry, or the whole text; what rank 0 says of it.
ENTRY = {"interface": "net1", "mac": "02:00:00:00:00:01", "dns": {}}
STATUS: dict[str, tuple[Any, str]] = {
    "row19-huge": (
        ENTRY | {"name": "x" * 230_000},
        r"no entry for .*@net1; it has x{50,}… \(\d+ characters\)",
    ),
    "row19-deep": ("[" * 10_000 + "]" * 10_000, "network-status is nested deeper than 32 levels"),
    "row19-escapes": (
        ENTRY | {"name": "\x1b[31mred\x1b]0;title\x07\u202e$(id)"},
        r"it has \\x1b\[31mred\\x1b\]0;title\\x07\\u202e\$\(id\)@net1",
    ),
    "row19-types": (
        ENTRY | {"name": 5, "ips": {"a": 1}, "mtu": "9000", "default": "yes"},
        r"malformed: \$\[0\]\.name must be a string, .*\$\[0\]\.ips must be an array of addresses, but is an object",
    ),
    "row19-others": (
        ENTRY | {"name": "NAMESPACE/backend-network", "ips": ["OTHER"]},
        "net1 .*: network-status has OTHER, but the kernel has .*: OTHER is missing",
    ),
}


def test_a_hostile_network_status(launcher: Launcher) -> None:
    """Row 19: of rank 0, which all go by. Five jobs at once."""
    kubectl, namespace = launcher.cluster.kubectl, launcher.namespace
    with contextlib.ExitStack() as stack:
        jobs = {name: stack.enter_context(Launched(launcher, name, RAN, held=(0, 1))) for name in STATUS}
        others = {name: job.address(1) for name, job in jobs.items()}
        for name, job in jobs.items():
            job.holder(0)
            value = STATUS[name][0]
            text = value if isinstance(value, str) else json.dumps([value])
            text = text.replace("NAMESPACE", namespace).replace("OTHER", others[name])
            patch = launcher.folder / f"{name}-patch.json"
            patch.write_text(json.dumps({"metadata": {"annotations": {STATUS_ANNOTATION: text}}}))
            (pod,) = [one["metadata"]["name"] for one in pods(launcher, name) if rank_of(one) == 0]
            # kubectl annotate takes 128 KiB at most.
            kubectl("patch", "pod", pod, "-n", namespace, "--type=merge", "--patch-file", patch)
        released = time.monotonic()
        for job in jobs.values():
            job.release(0)
            job.release(1)
        ended = {name: job.finish() for name, job in jobs.items()}
    within(30, "five jobs have ended", released, max(done.at for done in ended.values()))
    for name, (_, said) in STATUS.items():
        done = ended[name]
        assert done.code == 4, done.stderr
        assert re.search(f"{name}-0: .*{said.replace('OTHER', others[name])}", done.stderr), done.stderr
        assert "nothing was started; exit code 4" in done.stderr
        assert "ran" not in done.stdout
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", done.stderr), ascii(done.stderr)
        assert len(done.stderr) < 5000
    assert launcher.left() == []


@concurrent
def test_addresses_that_other_machines_have_for_a_while(launcher: Launcher) -> None:
    """Row 11 as Whereabouts brings it about, where a pod's address is given on before its interface is gone."""
    given = ("--range", "fcbb:0:800:dddd::/64", "--name", "taken")
    launcher.cluster.kubectl("apply", "-f", "-", input=addons.attachment(launcher.namespace, *given))
    with contextlib.ExitStack() as others:
        # Between a node's own pods and its ens5 there is no path: so the addresses are the other node's.
        for last in (1, 2):
            others.enter_context(address(launcher.cluster, "node1", f"fcbb:0:800:dddd::{last}/64"))
        words = ("--node-selector", "kubernetes.io/hostname=node2")
        with Launched(launcher, "taken", TALK, *words, network="taken", arguments=("1",)) as job:
            said = "taken-{}: .*failed for fcbb:0:800:dddd::[12]/64.*; the pod exits so that another pod replaces it"
            for rank in (0, 1):
                job.wait_for(said.format(rank))
            others.close()
            done = job.finish()
    print(done.stderr)
    assert done.code == 0, done.stderr
    assert job.receipt()["backend_share"] > 0.99
    assert launcher.left() == []


@concurrent
def test_the_route_to_a_peer_leaves_through_eth0(launcher: Launcher) -> None:
    """Row 27: the peer and the fix are named."""
    with Launched(launcher, "row27", RAN, held=(1,)) as job:
        peer = job.address(0)
        in_network(job.holder(1), "ip", "-6", "route", "add", f"{peer}/128", "dev", "eth0")
        job.release(1)
        done = job.finish()
    assert done.code == 4, done.stderr
    said = f"row27-1 to row27-0 \\({peer}\\): the route leaves through eth0 .*fix: ip route replace {peer} dev net1"
    assert re.search(said, done.stderr), done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_mtu_1500_on_one_node(launcher: Launcher, node: str) -> None:
    """Row 12: both values named, whichever side it is."""
    with mtu(launcher.cluster, node, 1500), Launched(launcher, "row12", RAN, "--spread", "hard") as job:
        job.address(1)
        where = job.where()
        done = job.finish()
    assert done.code == 4, done.stderr
    narrow, wide = sorted(where, key=lambda rank: where[rank] != node)
    assert re.search(f"net1.*MTU 1500 on row12-{narrow}, MTU 9000 on row12-{wide}", done.stderr), done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


@pytest.mark.quiet
def test_a_nodes_cable(launcher: Launcher) -> None:
    """Row 8: a flap of 2 s is survived and in the receipt; a cut is named within 5 s and stops the job."""
    cluster = launcher.cluster
    words = ("--spread", "hard", "--link-grace", "3")
    with Launched(launcher, "row8", TALK, *words, arguments=("inf",)) as job:
        job.wait_for("exchanged 50", on="stdout")
        node = job.where()[1]
        address = job.address(1)
        with cable_cut(cluster, node) as cut:
            named = job.wait_for(rf"row8-1: net1 \({address}\) lost its carrier; the job stops unless")
            time.sleep(max(0, cut + 2 - time.monotonic()))
        job.wait_for(r"row8-1: net1 .* after [0-3]\.\d s")
        within(5, "the flap is named", cut, named)
        count = len(re.findall("exchanged", job.text("stdout")))
        until(lambda: len(re.findall("exchanged", job.text("stdout"))) > count, "bytes after the flap", 15)
        with cable_cut(cluster, node) as cut:
            said = rf"row8-1.*net1 \({address}\) lost its carrier for more than 3 s"
            named = job.wait_for(said)
            done = job.finish()
    assert done.code == 4, done.stderr
    within(3 + 5, "the cut is more than --link-grace 3", cut, named)
    within(30, "the job with a cut cable has ended", cut, done.at)
    found = job.receipt()
    assert (found["failure"]["kind"], found["failure"]["node"]) == ("network", "row8-1")
    (worker,) = [one for one in found["nodes"] if one["node"] == "row8-1"]
    flaps = worker["flaps"]
    assert [flap["interface"] for flap in flaps][:1] == ["net1"]
    assert 0.5 < flaps[0]["duration_s"] < 4  # the kernel takes up to 1 s to tell net1
    assert launcher.left() == []


@pytest.mark.quiet
def test_packets_are_lost_while_there_is_carrier(launcher: Launcher) -> None:
    """Row 9: a stall is told within its time-out and stops the job where that was asked for."""
    words = ("--spread", "hard", "--stall-timeout", "3", "--stall-action", "stop")
    with Launched(launcher, "row9", TALK, *words, arguments=("inf",)) as job:
        job.wait_for("exchanged 50", on="stdout")
        with packets_lost(*launcher.cluster.nodes) as lost:
            told = job.wait_for("stalled: .* for [3-9] s")
            done = job.finish()
    # Up to 2 s until it is sure, and 3 s for the stacks of those that can still be asked.
    within(3 + 2 + 3 + 5, "the stall after --stall-timeout 3 is told", lost, told)
    assert done.code == 124, done.stderr
    assert "does not respond" not in done.stderr  # the agents talk over eth0
    assert "row9-0: " in done.stderr
    assert "row9-1: " in done.stderr
    within(45, "the job with lost packets has ended", lost, done.at)
    assert launcher.left() == []
