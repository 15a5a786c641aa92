"""Who reaches the workers on eth0, with policies that are enforced: their own pods, and nobody else."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster import uid_range
from tests.cluster.concurrency import concurrent
from tests.cluster.enforcer import enforced
from tests.cluster.launched import Launched, pods
from tests.cluster.launcher import Launcher
from tests.cluster.places import DNS_ADDRESS
from tests.cluster.pods import staying
from tests.cluster.user import someone
from torchnet.constants import RUN_LABEL, WORK_DIR

# Servers as TensorBoard's and debuggers' on eth0. Each worker connects to all of the other's, then waits.
TALK = f"""\
    import os, socket, time
    import torch
    import torch.distributed as dist
    import torchnet

    PORTS = (6006, 5678, 29400, 29500, 29550, 40000)

    with torchnet.init("gloo"):
        rank = dist.get_rank()
        servers = [socket.create_server(("0.0.0.0", port)) for port in PORTS]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("10.96.0.1", 9))
            own = probe.getsockname()[0]
        every = [torch.zeros(4, dtype=torch.int64) for _ in range(2)]
        dist.all_gather(every, torch.tensor([int(part) for part in own.split(".")]))
        peer = ".".join(str(int(part)) for part in every[1 - rank])
        for port in PORTS:
            socket.create_connection((peer, port), 10).close()
        print("user", os.getuid(), os.getgid(), "reached", peer, flush=True)
        dist.barrier()
        print("waits", flush=True)
        while not os.path.exists("{WORK_DIR}/go"):
            time.sleep(0.1)
        dist.barrier()
"""
HELLO = "print('hello', flush=True)\n"
# Ports of an address that answer, whether they accept the connection or refuse it.
SCAN = """
import json, resource, select, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
address, found = sys.argv[1], []
ports = [port for span in sys.argv[2:] for port in range(*(int(n) + k for k, n in enumerate(span.split("-"))))]
for start in range(0, len(ports), 8000):
    poll, sockets = select.epoll(), {}
    for port in ports[start : start + 8000]:
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((address, port))
        sockets[one.fileno()] = one, port
        poll.register(one, select.EPOLLOUT)
    while sockets and (events := poll.poll(0.5)):
        for descriptor, _ in events:
            one, port = sockets.pop(descriptor)
            found.append(port)
            one.close()
    for one, _ in sockets.values():
        one.close()
    poll.close()
print(json.dumps(sorted(found)))
"""
ALL = "1-65535"


def policy(name: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def create(launcher: Launcher, body: dict[str, Any], namespace: str = "") -> None:
    words = ("create", "-n", namespace or launcher.namespace, "-f", "-")
    launcher.cluster.kubectl(*words, input=json.dumps(body))


def outsider(launcher: Launcher, name: str, node: str, namespace: str, *, assigned: bool = False) -> None:
    """A pod that is none of the run's, without net1."""
    body = staying(name, node, namespace)
    body["metadata"].pop("annotations")
    if assigned:  # the namespace gives it a user
        body["spec"]["securityContext"].pop("runAsUser")
    create(launcher, body, namespace)


def reached(launcher: Launcher, namespace: str, pod: str, address: str, *spans: str) -> list[int]:
    words = ("exec", "-n", namespace, pod, "--", "python3", "-c", SCAN, address, *spans)
    found: list[int] = json.loads(launcher.cluster.kubectl(*words))
    return found


@concurrent
def test_an_outsiders_pod_reaches_no_port_of_the_workers(launcher: Launcher, uid_ranges: None) -> None:
    """In a namespace with default-deny ingress and a uid range, for a user with ``edit`` alone, who also benches and
    verifies there; the job's own pods connect.
    """
    del uid_ranges
    cluster, namespace = launcher.cluster, launcher.namespace
    tenant = ("--kubeconfig", someone(launcher, "edit"), "--run-as", "namespace")
    uid_range.give(cluster, namespace)
    create(launcher, policy("default-deny", podSelector={}, policyTypes=["Ingress"]))
    with cluster.namespace(attachment=False) as other, enforced(cluster, namespace) as enforcer:
        outsider(launcher, "same", "node1", namespace, assigned=True)
        outsider(launcher, "other", "node1", other)
        with Launched(launcher, "isolated", TALK, *tenant) as job:
            job.wait_for(r"^\[rank 0\] waits", "stdout", 120)
            job.wait_for(r"^\[rank 1\] waits", "stdout", 120)
            workers = pods(launcher, job.name)
            enforcer.wait_for(namespace, *(pod["metadata"]["name"] for pod in workers))
            addresses = [pod["status"]["podIP"] for pod in workers]
            for where, name in ((namespace, "same"), (other, "other")):
                cluster.kubectl("wait", "-n", where, "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
            # From the worker's own node, and from the other one.
            tries = [("same", namespace, addresses[0]), ("other", other, addresses[1])]
            tries.append(("other", other, addresses[0]))
            with ThreadPoolExecutor(len(tries)) as pool:
                found = [*pool.map(lambda one: reached(launcher, one[1], one[0], one[2], ALL), tries)]
            assert found == [[]] * len(tries), [len(ports) for ports in found]
            # The policy of the first release lets the outsider in: so the scan sees what is open.
            spans = ("1-300", "29400-29700", "65000-65535")
            own = {"matchLabels": {RUN_LABEL: job.name}}
            parts = [
                {"protocol": protocol, "port": first, "endPort": last}
                for protocol in ("TCP", "UDP", "SCTP")
                for first, last in ((1, 29499), (29600, 65535))
            ]
            old = policy("old", podSelector=own, policyTypes=["Ingress"], ingress=[{"ports": parts}])
            create(launcher, old)
            enforcer.wait_for(namespace, policy="old")
            expected = [
                port
                for first, last in ((1, 300), (29400, 29499), (29600, 29700), (65000, 65535))
                for port in range(first, last + 1)
            ]
            for address in addresses:
                assert reached(launcher, other, "other", address, *spans) == expected
            for rank in range(2):
                Path(f"/proc/{job.script_of(rank)}/root{WORK_DIR}/go").touch()
            ended = job.finish(120)
        assert ended.code == 0, ended.stderr
        for rank in range(2):
            said = f"[rank {rank}] user {uid_range.FIRST} 0 reached {addresses[1 - rank]}"
            assert said in ended.stdout, ended.stdout
        assert "no rule allows" not in ended.stderr
        benched = launcher.run("bench", *launcher.words(*tenant, "--max-bytes", "1M", nnodes=2)[1:])
        assert (benched.code, "busbw" in benched.out) == (0, True), benched.out + benched.err
        image = cluster.worker_image
        verified = launcher.run("verify", "-n", namespace, "--image", image, *tenant)
        assert verified.code == 0, verified.out + verified.err
        assert "9000 bytes in both directions" in verified.out
        assert "not allowed to list nodes" in verified.out + verified.err
    assert launcher.left() == []


# The cluster's name server is no pod here, as a node's DNS cache is none.
NAME_SERVER = policy(
    "name-server", podSelector={}, policyTypes=["Egress"],
    egress=[{"to": [{"ipBlock": {"cidr": f"{DNS_ADDRESS}/32"}}], "ports": [{"protocol": "UDP", "port": 53}]}],
)  # fmt: skip


@concurrent
def test_a_namespace_that_denies_egress_is_named_with_the_missing_rules(launcher: Launcher) -> None:
    cluster, namespace = launcher.cluster, launcher.namespace
    script = launcher.script(HELLO)
    create(launcher, policy("deny-all", podSelector={}, policyTypes=["Ingress", "Egress"]))
    fix = f"torchnet manifests network-policy -n {namespace}"
    with enforced(cluster, namespace, holds=True) as enforcer:
        ran = launcher.run(*launcher.words("--start-timeout", "12", nnodes=2), script)
        assert ran.code == 124, ran.err
        assert "NetworkPolicy deny-all in namespace" in ran.err
        assert (
            "no rule allows the workers egress to the job's own pods (TCP port 29499), egress to DNS"
            in ran.err
        )
        assert ran.err.count(fix) == 2, "at the start, and at the time-out"
        create(launcher, NAME_SERVER)
        printed = launcher.run("manifests", "network-policy", "-n", namespace)
        assert printed.code == 0, printed.err
        cluster.kubectl("apply", "-f", "-", input=printed.out)
        enforcer.wait_for(namespace, policy="torchnet-egress")
        ran = launcher.run(*launcher.words(nnodes=2), script)
        assert ran.code == 0, ran.err
        assert ran.out.count("hello") == 2
        assert "no rule allows" not in ran.err
    assert launcher.left() == []


@concurrent
def test_a_policy_is_enforced_where_it_is_to_be_and_nowhere_else(launcher: Launcher) -> None:
    """The enforcer itself: what it denies, and that all is as before when it ends."""
    cluster, namespace = launcher.cluster, launcher.namespace
    outsider(launcher, "server", "node1", namespace)
    outsider(launcher, "near", "node1", namespace)
    outsider(launcher, "far", "node2", namespace)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    address = cluster.kubectl("get", "pod", "server", "-n", namespace, "-o", "jsonpath={.status.podIP}")

    def admitted() -> list[str]:
        return [name for name in ("near", "far") if reached(launcher, namespace, name, address, "80-80")]

    assert admitted() == ["near", "far"]
    cluster.kubectl("label", "pod", "near", "-n", namespace, "role=friend")
    friend = {"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}
    create(launcher, policy("friends", podSelector={}, policyTypes=["Ingress"], ingress=[friend]))
    with enforced(cluster, namespace) as enforcer:
        enforcer.wait_for(namespace, "server", policy="friends")
        assert admitted() == ["near"]
        # A second policy adds to the first.
        more = {"ports": [{"protocol": "TCP", "port": 79, "endPort": 81}]}
        create(launcher, policy("port", podSelector={}, policyTypes=["Ingress"], ingress=[more]))
        enforcer.wait_for(namespace, "server", policy="port")
        assert admitted() == ["near", "far"]
        cluster.kubectl("delete", "networkpolicy", "port", "-n", namespace)
        create(
            launcher,
            policy("silent", podSelector={"matchLabels": {"role": "friend"}}, policyTypes=["Egress"]),
        )
        enforcer.wait_for(namespace, "server", policy="silent")
        assert admitted() == []
    assert admitted() == ["near", "far"]
