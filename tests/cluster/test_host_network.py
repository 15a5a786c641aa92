"""Workers in their hosts' network: ``--network host:ens5``. A run, another one beside it, and a refusing namespace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.concurrency import concurrent
from tests.cluster.faults import address
from tests.cluster.launched import Launched, pods
from tests.cluster.launcher import Launcher
from tests.cluster.places import NODES, node_address
from tests.scripts import RAN

ENS5 = {node: f"fcbb:0:8fe::{number}" for number, node in enumerate(NODES, 1)}
FLOATS, ELSEWHERE = 4_000_000, 8_000_000
# Each of the two workers sends the tensor once, in two halves; rank 0 sends the rest over eth0. Both ends count.
BACKEND = 2 * 4 * FLOATS
TRUTH = BACKEND / (BACKEND + ELSEWHERE)

# All-reduces over the backend, and rank 0 sends to rank 1 over eth0. Arguments: bytes, and NODE=ADDRESS for each host.
EXCHANGE = """
    import os, socket, sys, time, warnings
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch, torch.distributed as dist
    count, addresses = int(sys.argv[1]), dict(word.split("=") for word in sys.argv[2:])
    own = addresses.pop(os.environ["TORCHNET_HOST"])
    (peer,) = addresses.values()
    rank = int(os.environ["RANK"])
    server = socket.create_server((own, 31999)) if rank == 1 else None
    dist.init_process_group("gloo")
    tensor = torch.ones(FLOATS)
    dist.all_reduce(tensor)
    if server is None:
        with socket.create_connection((peer, 31999)) as connection:
            connection.sendall(bytes(count))
            time.sleep(1)  # so that it is seen whose it is
    else:
        connection, _ = server.accept()
        while connection.recv(1 << 20):
            pass
        connection.close()
    print("exchanged", tensor[0].item(), os.environ["GLOO_SOCKET_IFNAME"], os.environ["MASTER_ADDR"], flush=True)
    while not os.path.exists("/tmp/go"):
        time.sleep(0.05)
""".replace("FLOATS", str(FLOATS))


@pytest.fixture(scope="module")
def hosts(cluster: Cluster) -> Iterator[None]:
    """The nodes' own ens5 with an address."""
    with contextlib.ExitStack() as stack:
        for node, text in ENS5.items():
            stack.enter_context(address(cluster, node, f"{text}/64"))
        yield


@pytest.fixture
def namespace(cluster: Cluster, hosts: None) -> Iterator[str]:
    """One that admits pods in their hosts' network, and has no attachment."""
    with cluster.namespace(enforce="privileged", attachment=False) as name:
        yield name


def test_a_run_in_the_hosts_network_and_another_one_beside_it(launcher: Launcher) -> None:
    """The hosts' ens5 carries the collectives; the kubelets, which use eth0, too, only make the bounds wider."""
    before = {node: launcher.cluster.ens5_counters(node).sent for node in NODES}
    named = [f"{node}={node_address(node)}" for node in NODES]
    with Launched(launcher, "first", EXCHANGE, network="host:ens5", arguments=(ELSEWHERE, *named)) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] exchanged 2.0 ens5 fcbb:0:8fe::", on="stdout")
        specs = [pod["spec"] for pod in pods(launcher, "first")]
        with Launched(launcher, "second", RAN, network="host:ens5") as other:
            beside = other.finish()
        for rank in (0, 1):
            Path(f"/proc/{job.script_of(rank)}/root/tmp/go").touch()
        done = job.finish()
    assert done.code == 0, done.stderr
    assert [spec["hostNetwork"] for spec in specs] == [True, True]
    assert {spec["nodeName"] for spec in specs} == set(NODES)

    found = job.receipt()
    assert (found["network"], [rail["peer_bytes"] >= BACKEND for rail in found["rails"]]) == ("host", [True])
    low, high = found["backend_share"], found["backend_share_high"]
    # What Gloo and the store say beside the tensor is less than a thousandth.
    assert low - 0.001 < TRUTH < high + 0.001, (low, TRUTH, high)
    assert high - low < 0.05, (low, high, found["proof_reason"])
    for node, start in before.items():
        assert launcher.cluster.ens5_counters(node).sent - start > BACKEND / 2

    assert beside.code == 0, beside.stderr
    print(f"bounds {low} to {high} for {TRUTH}: {found['proof_reason']}")
    assert launcher.left() == []


@concurrent
def test_a_namespace_that_admits_no_pods_in_their_hosts_network(launcher: Launcher) -> None:
    """It is refused before anything exists, with the label that the namespace needs; and the command works."""
    kubectl, label = launcher.cluster.kubectl, "pod-security.kubernetes.io/enforce"
    kubectl("label", "--overwrite", "namespace", launcher.namespace, f"{label}=baseline")
    ran = launcher.run(*launcher.words(network="host:ens5", nnodes=2), launcher.script(RAN))
    assert ran.code == 3, ran.err
    assert "hostNetwork=true" in ran.err
    command = f"kubectl label --overwrite namespace {launcher.namespace} {label}=privileged"
    assert command in ran.err
    assert launcher.left() == []
