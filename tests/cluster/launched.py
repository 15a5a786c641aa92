"""A launch on the cluster that is listened to, with its processes as the nodes see them; and runs made by hand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.faults import process
from tests.cluster.launcher import Launcher
from tests.jobs import SLOW, TORCHNET, Job, parent, receipt, until
from torchnet.constants import (
    AGENT_ZIP,
    CODE_DIR,
    JOBSET_JOB,
    JOIN_PORT,
    SPEC_JSON,
    STATUS_ANNOTATION,
    TOKEN_DIR,
    TOKEN_KEY,
)


class Launched(Job):
    """``torchnet launch`` in the launcher's namespace; ``processes`` are the pods', with the pids of this machine.

    Args:
        name: of the run.
        words: further flags; ``arguments`` are the script's.
        held: ranks whose pods wait before their preparation until :meth:`release`.
    """

    def __init__(
        self,
        launcher: Launcher,
        name: str,
        text: str,
        *words: object,
        arguments: tuple[object, ...] = (),
        nnodes: int = 2,
        held: tuple[int, ...] = (),
        network: str = "backend-network",
    ) -> None:
        self.launcher, self.name = launcher, name
        self.maker = (
            f"{name}-{JOBSET_JOB}-0" if "jobset" in words else name
        )  # what the pods' names begin with
        flags: list[object] = ["--run-id", name, "--start-timeout", "60", "--json", self.file, *words]
        if held:
            template = launcher.folder / f"{name}-held.json"
            template.write_text(json.dumps(_holding(launcher.cluster, held)))
            flags += ["--pod-template", template]
        made = launcher.words(*map(str, flags), nnodes=nnodes, network=network)
        script = launcher.script(text, f"{name}.py")
        words = (*made, script, *arguments)
        place, variables = launcher.folder, _clean(launcher)
        super().__init__(*words, command=command(launcher.cluster), env=variables, cwd=place)

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *what: object) -> None:
        killed = self.process.poll() is None
        super().__exit__(*what)
        if killed:
            self.launcher.run("down", self.name, "-n", self.launcher.namespace)

    @property
    def file(self) -> Path:
        return self.launcher.folder / f"{self.name}.json"

    def script_of(self, rank: int, seconds: float = 60) -> int:
        """The pid of a rank's script, once it runs."""
        return _pid(self.launcher.namespace, self.maker, rank, seconds, RANK=str(rank))

    def agent_of(self, rank: int) -> int:
        """The pid of the agent whose training container a rank's script runs in."""
        return parent(self.script_of(rank))

    def holder(self, rank: int) -> int:
        """The pid of the shell that keeps a held pod waiting; it is in the pod's network."""
        return _pid(self.launcher.namespace, self.maker, rank, 60, HOLDS=str(rank))

    def joined(self, rank0: int, others: int) -> None:
        """Wait until rank 0, whose agent's pid this is, listens and has connections from so many other workers."""
        tables = [Path(f"/proc/{rank0}/net/{name}") for name in ("tcp", "tcp6")]
        port = f":{JOIN_PORT:04X}"

        def there() -> bool:
            rows = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
            states = [row[3] for row in rows if row[1].endswith(port)]
            return "0A" in states and states.count("01") >= others  # LISTEN, ESTABLISHED

        until(there, f"{others} connections to the join port")

    def joining(self, rank: int) -> int:
        """The pid of the agent in the training container of a rank's pod."""
        agent = f"{CODE_DIR}/{AGENT_ZIP}"  # the startup probe has the same variables
        token = f"{TOKEN_DIR}/{TOKEN_KEY}"
        return _pid(self.launcher.namespace, self.maker, rank, 60, agent, TORCHNET_TOKEN_FILE=token)

    def release(self, rank: int) -> None:
        Path(f"/proc/{self.holder(rank)}/root/tmp/go").touch()

    def where(self) -> dict[int, str]:
        """The node of each rank's pod."""
        return {rank_of(pod): pod["spec"]["nodeName"] for pod in pods(self.launcher, self.name)}

    def address(self, rank: int, seconds: float = 60) -> str:
        """net1's address of a rank's pod, once Multus has told it."""
        return self.addresses(rank, seconds)["net1"]

    def addresses(self, rank: int, seconds: float = 60) -> dict[str, str]:
        """The addresses of a rank's newest pod by interface, as network-status tells them."""
        found: dict[str, str] = {}

        def told() -> bool:
            made = [pod for pod in pods(self.launcher, self.name) if rank_of(pod) == rank]
            made.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
            text = made[-1]["metadata"].get("annotations", {}).get(STATUS_ANNOTATION) if made else None
            found.update({one["interface"]: one["ips"][0] for one in json.loads(text or "[]")})
            return bool(found)

        until(told, f"network-status of {self.name}-{rank}", seconds, SLOW)
        return found

    def receipt(self) -> dict[str, Any]:
        return receipt(self.file)


def command(cluster: Cluster) -> tuple[str, ...]:
    """torchnet's command where the API server is reached."""
    return (*cluster.nsenter_prefix, *TORCHNET)


def _clean(launcher: Launcher) -> dict[str, str]:
    return launcher.cluster.environment() | {"XDG_CONFIG_HOME": str(launcher.folder / "xdg")}


@contextlib.contextmanager
def by_hand(launcher: Launcher, objects: list[dict[str, Any]]) -> Iterator[Job]:
    """``objects`` of one run made with kubectl, and ``torchnet attach`` that looks on; nothing stays."""
    name = objects[0]["metadata"]["labels"]["torchnet.alt/run"]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    launcher.cluster.kubectl("create", "-f", "-", input=document)
    words = ("attach", name, "-n", launcher.namespace, "--json", launcher.folder / "receipt.json")
    try:
        with Job(*words, command=command(launcher.cluster), env=_clean(launcher)) as job:
            yield job
    finally:
        done = launcher.run("down", name, "-n", launcher.namespace)
    assert done.code == 0, done.err
    assert launcher.left() == []


def rendered(
    launcher: Launcher, text: str, *words: str, network: str = "backend-network"
) -> list[dict[str, Any]]:
    """The objects of a run of two plain Pods, as ``--dry-run`` prints them."""
    made = launcher.words("--kind", "pods", "--dry-run", "-o", "json", *words, nnodes=2, network=network)
    done = launcher.run(*made, launcher.script(text))
    assert done.code == 0, done.err
    document = json.loads(done.out)
    found: list[dict[str, Any]] = document["items"] if isinstance(document, dict) else document
    return found


def impatient(objects: list[dict[str, Any]], seconds: float) -> None:
    """Have the agents of ``objects`` give up so soon: without a launcher they wait longer than --start-timeout."""
    for one in objects:
        if SPEC_JSON in one.get("data", {}):
            spec = json.loads(one["data"][SPEC_JSON])
            assert spec["start_timeout"] > seconds
            one["data"][SPEC_JSON] = json.dumps(spec | {"start_timeout": seconds})


def rank_of(pod: dict[str, Any]) -> int:
    labels = pod["metadata"]["labels"]
    return int(labels.get("torchnet.alt/node-rank", labels.get("batch.kubernetes.io/job-completion-index")))


def pods(launcher: Launcher, name: str) -> list[dict[str, Any]]:
    """The pods of one run, by rank."""
    words = ("get", "pods", "-n", launcher.namespace, "-l", f"torchnet.alt/run={name}", "-o", "json")
    return sorted(json.loads(launcher.cluster.kubectl(*words))["items"], key=rank_of)


def never_started(pods: list[dict[str, Any]]) -> bool:
    """Whether no script of these pods, which have ended, has ever been started: by their agents' last words."""
    states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", ())]
    ended = [one["terminated"]["message"] for one in states if "terminated" in one]
    waits = [one for one in states if "waiting" in one]
    return len(ended) + len(waits) == len(pods) and not any(json.loads(text)["started"] for text in ended)


def _pid(namespace: str, name: str, rank: int, seconds: float, word: str = "", **variables: str) -> int:
    """The pid of a run's process that has these variables, and this word in its command."""
    wanted = {"POD_NAMESPACE": namespace, "JOB_COMPLETION_INDEX": str(rank), **variables}
    found = 0

    def there() -> bool:
        nonlocal found
        found = process(f"{name}-{rank}-", word, **wanted)
        return found != 0

    until(there, f"a process of {name}-{rank} with {variables}", seconds, SLOW)
    return found


def _holding(cluster: Cluster, ranks: tuple[int, ...]) -> dict[str, Any]:
    """A pod template: the pods of these ranks wait for a file before their preparation."""
    text = " ".join(map(str, ranks))
    line = f"case ' {text} ' in *\" $JOB_COMPLETION_INDEX \"*) "
    line += "HOLDS=$JOB_COMPLETION_INDEX exec sh -c 'until [ -e /tmp/go ]; do sleep 0.1; done';; esac"
    told = {"POD_NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in told.items()]
    holder = {
        "name": "hold",
        "image": cluster.worker_image,
        "command": ["sh", "-c", line],
        "env": fields,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {"spec": {"initContainers": [holder]}}
