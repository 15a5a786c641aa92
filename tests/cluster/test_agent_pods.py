"""The agent in real pods: two containers that share a state, or one in a Job of one's own."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.cluster.agent_job import objects
from tests.cluster.cluster import Cluster
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.shell import ClusterFailure
from tests.cluster.shell import run as run_command
from tests.conftest import ROOT
from torchnet.constants import INDEX_LABEL, RUN_LABEL

# A Job that was made by hand is not removed when it ends.
by_hand = partial(concurrent, keeps_runs=True)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace(keeps_runs=True) as name:
        yield name


TALK = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
one = torch.ones(1_000_000)
dist.all_reduce(one)
print("sum", one[0].item(), "on", os.environ["GLOO_SOCKET_IFNAME"], os.environ["HOME"], os.getuid(), flush=True)
print("a word on stderr", file=sys.stderr, flush=True)
dist.barrier()
dist.destroy_process_group()
"""


# All that goes through a TLS connection, both ways, while the agent asks once.
ASKS = """
import ssl, sys
from torchnet.agent.kube_api import ApiServer, Ask
host, place, namespace, labels = sys.argv[1:]
count = 0
class Counting(ssl.SSLSocket):
    def sendall(self, data, *more):
        global count
        count += len(data)
        return super().sendall(data, *more)
    def recv_into(self, *what):
        global count
        got = super().recv_into(*what)
        count += got
        return got
ssl.SSLContext.sslsocket_class = Counting
answer = ApiServer(host, 443, place).get(Ask(namespace, labels=labels))
assert len(answer["items"]) == 1, answer
print(count)
"""


class Run:
    """A Job that was applied, and its pods."""

    def __init__(self, launcher: Launcher, script: str, **fields: Any) -> None:
        self.cluster, self.folder, self.namespace = launcher.cluster, launcher.folder, launcher.namespace
        self.workers = int(fields.get("workers", 2))
        made = objects(
            self.folder, self.namespace, "train", script, image=self.cluster.worker_image, **fields
        )
        document = {"apiVersion": "v1", "kind": "List", "items": made}
        self.cluster.kubectl("create", "-f", "-", input=json.dumps(document))

    def pods(self) -> list[dict[str, Any]]:
        """By completion index."""
        text = self.cluster.kubectl("get", "pods", "-n", self.namespace, "-l", "job-name=train", "-o", "json")
        return sorted(
            json.loads(text)["items"], key=lambda pod: int(pod["metadata"]["annotations"][INDEX_LABEL])
        )

    def ended(self, seconds: float = 240) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            pods = self.pods()
            if len(pods) == self.workers and all(
                p["status"]["phase"] in ("Succeeded", "Failed") for p in pods
            ):
                return pods
            if time.monotonic() > deadline:
                raise AssertionError(self.story(pods))
            time.sleep(0.3)

    def succeeded(self) -> list[dict[str, Any]]:
        """Its pods, all of which must have ended well."""
        pods = self.ended()
        bad = [pod for pod in pods if pod["status"]["phase"] != "Succeeded"]
        assert not bad, self.story(pods)
        return pods

    def story(self, pods: list[dict[str, Any]]) -> str:
        said = []
        for pod in pods:
            for container in ("prepare", "work"):
                try:
                    said.append(f"-- {pod['metadata']['name']} {container}\n{self.log(pod, container)}")
                except ClusterFailure as error:
                    said.append(f"-- {pod['metadata']['name']} {container}: {error}")
        return "\n".join(said)

    def asked(self, labels: str) -> str:
        """The bytes of HTTP that the agent's question for these pods takes, both ways, with the Job's own account."""
        kubectl, place = self.cluster.kubectl, self.folder / "account"
        place.mkdir()
        (place / "token").write_text(kubectl("create", "token", "train", "-n", self.namespace))
        authority = ("get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}")
        (place / "ca.crt").write_text(kubectl(*authority, "-n", self.namespace))
        host = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}", "-n", "default")
        words = (sys.executable, "-c", ASKS, host, str(place), self.namespace, labels)
        return run_command(*self.cluster.nsenter_prefix, *words, cwd=ROOT)

    def log(self, pod: dict[str, Any], container: str) -> str:
        words = ("-n", self.namespace, pod["metadata"]["name"], "-c", container)
        return self.cluster.kubectl("logs", *words)


def message(pod: dict[str, Any], container: str) -> dict[str, Any]:
    statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"]["containerStatuses"]]
    (found,) = (s["state"]["terminated"] for s in statuses if s["name"] == container)
    told: dict[str, Any] = json.loads(found["message"])
    assert told["code"] == found["exitCode"]
    return told


@by_hand
def test_two_containers_share_the_way(launcher: Launcher) -> None:
    run = Run(launcher, TALK, workers=3)
    pods = run.succeeded()
    for rank, pod in enumerate(pods):
        log, before = run.log(pod, "work"), run.log(pod, "prepare")
        assert f"[{rank}] sum 3.0 on net1" in log
        assert f"[{rank}!] a word on stderr" in log
        for text in (log, before):
            assert re.search(r"^torchnet: torchnet's own time: \d+\.\d+ s$", text, re.MULTILINE), text
        told = message(pod, "work")
        assert (told["node"], told["node_rank"], told["phase"]) == (f"train-{rank}", rank, "work")
        assert (told["failure"], told["receipt"]["proof"]) == (None, "measured")
        assert message(pod, "prepare")["phase"] == "prepare"
    assert message(pods[0], "work")["job"]["backend_share"] >= 0.99
    assert "/etc/hosts" not in run.log(pods[0], "work")
    (line,) = re.findall(r"^torchnet: receipt: (.*)$", run.log(pods[0], "work"), re.MULTILINE)
    receipt = json.loads(line)
    assert (receipt["runtime"], receipt["proof"], receipt["findings"]) == ("kubernetes", "measured", [])
    assert [node["node"] for node in receipt["nodes"]] == ["train-0", "train-1", "train-2"]


@by_hand
def test_one_container_in_a_job_of_ones_own(launcher: Launcher) -> None:
    """No label of torchnet's, no POD_NAME: the pod is found by its address, rank 0 by the Job's own label."""
    run = Run(launcher, TALK, phases=False)
    pods = run.succeeded()
    assert message(pods[0], "work")["job"]["exit_code"] == 0


@by_hand
def test_the_environment_alone_for_a_script_that_a_shell_starts(launcher: Launcher) -> None:
    run = Run(launcher, TALK, phases=False, joins=False)
    for pod in run.succeeded():
        log = run.log(pod, "work")
        assert "sum 2.0 on net1" in log
        assert "torchnet env does not join the workers" in log


@by_hand
def test_without_rights_all_say_what_is_missing(launcher: Launcher) -> None:
    run = Run(launcher, TALK, rights=False)
    for rank, pod in enumerate(run.ended()):
        told = message(pod, "work" if rank else "prepare")
        assert told["code"] == 3
        own, rank0s = f"get pods {pod['metadata']['name']}", f"list pods ({RUN_LABEL}=train,{INDEX_LABEL}=0)"
        asked = rank0s if rank else own
        assert f"{asked} in namespace {launcher.namespace}: 403" in told["failure"]["text"]
        assert "--service-account" in told["failure"]["text"]


GREEDY = """
import os, sys
from time import sleep
if os.environ["RANK"] == "1":
    kept = []
    while True:
        kept.append(bytearray(b"x" * (8 << 20)))
sleep(60)
"""


@by_hand
def test_a_process_that_runs_out_of_memory_is_named(launcher: Launcher) -> None:
    run = Run(launcher, GREEDY, memory="160Mi")
    pods = run.ended()
    for pod in pods:
        told = message(pod, "work")
        assert (told["code"], told["failure"]["rank"]) == (137, 1), told
        assert (
            "was killed by SIGKILL (exit code 137): its container exceeded its memory limit of 160 MiB"
            in (told["failure"]["text"])
        )


COUNT = """
import time
with open("/proc/net/dev") as file:
    print(next(line for line in file if "eth0:" in line), flush=True)
"""


@pytest.mark.parametrize("workers", [2, 8])
def test_discovery_asks_for_little_and_the_same_for_any_number(launcher: Launcher, workers: int) -> None:
    """Everything on eth0 up to the script, with TLS: one question of each worker, as of a launcher's.

    Rank 0 asks for its own pod, the others for rank 0's; some ask again, because that pod does not exist yet. An answer
    is 7 KB here, 5.5 of them managedFields, which the API server leaves in an object's metadata; TLS and the packets'
    headers are the rest. In HTTP alone it is 10 KB at most, of which the agent's own code asks once more here.
    """
    run = Run(launcher, COUNT, workers=workers)
    counted = []
    for pod in run.succeeded():
        (line,) = re.findall(r"eth0: *(.*)", run.log(pod, "work"))
        figures = line.split()
        counted.append((int(figures[0]), int(figures[8])))
    received, sent = zip(*counted, strict=True)
    assert statistics.median_low(received) <= 16_000
    assert statistics.median_low(sent) <= 6_000
    assert max(received) <= 3 * 16_000
    assert max(sent) <= 3 * 6_000
    asked = int(run.asked(f"{RUN_LABEL}=train,{INDEX_LABEL}=0"))
    print(f"one question and its answer: {asked:,} bytes of HTTP")
    assert 1_000 < asked <= 10_000
