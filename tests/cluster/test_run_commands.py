"""``torchnet status`` and ``logs`` with kubectl's options, and parts of volumes, all of one run."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.jobs import SLOW, until
from torchnet.constants import STATUS_ANNOTATION

# The claim is mounted twice, and a key of a ConfigMap is one file among others.
LOOKS = """\
    import os, time
    found = [os.path.isdir(path) for path in ("/data", "/more")]
    print("mounted", found, open("/usr/local/share/a.txt").read(), os.access("/data", os.W_OK), flush=True)
    time.sleep(2)
    print("last line", flush=True)
"""
VOLUMES = (
    *("--volume", "pvc:data/sub/one:/data:ro", "--volume", "pvc:data/two:/more"),
    *("--volume", "configmap:settings/a.txt:/usr/local/share/a.txt"),
)


def claim(launcher: Launcher) -> list[dict[str, Any]]:
    """A claim on a folder of each node."""
    name = f"data-{launcher.namespace}"
    size: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    folder = {"path": f"/var/lib/kubelet/{name}", "type": "DirectoryOrCreate"}
    volume = size | {"capacity": {"storage": "1Mi"}, "hostPath": folder}
    wanted = size | {"resources": {"requests": {"storage": "1Mi"}}, "volumeName": name}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": wanted},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings"},
            "data": {"a.txt": "hello", "b.txt": "x"},
        },
    ]


@concurrent
def test_a_run_as_its_commands_show_it(launcher: Launcher) -> None:
    kubectl, namespace = launcher.cluster.kubectl, ("-n", launcher.namespace)
    for body in claim(launcher):
        kubectl("create", *namespace, "-f", "-", input=json.dumps(body))
    try:
        following = launcher.start("status", *namespace, "-w", "-o", "json")
        began = time.monotonic()
        labels = ("--label", f"team={launcher.namespace}")
        words = launcher.words("--run-id", "parts", "--keep", *labels, *VOLUMES, nnodes=2)
        ran = launcher.run(*words, launcher.script(LOOKS))
        assert ran.code == 0, ran.err
        assert ran.out.count("mounted [True, True] hello False") == 2
        time.sleep(2)
        followed = launcher.signalled(following, signal.SIGINT)
        assert (followed.code, followed.err) == (130, "")
        changes(followed.out)
        status_options(launcher)
        log_options(launcher, time.monotonic() - began)
        assert launcher.run("down", "parts", *namespace).code == 0
        assert launcher.left() == []
    finally:
        kubectl("delete", "pvc", "data", *namespace, "--wait=false", "--ignore-not-found")
        kubectl("delete", "pv", f"data-{launcher.namespace}", "--wait=false", "--ignore-not-found")


def changes(out: str) -> None:
    """What `status -w` printed from before the launch to its end."""
    rows = [json.loads(line) for line in out.splitlines()]
    states = [row["state"] for row in rows]
    assert {row["run"] for row in rows} == {"parts"}
    assert states[0] == "starting"
    assert states[-1] == "done"
    assert "running" in states
    assert (rows[-1]["ready"], rows[-1]["exit_code"]) == (0, 0)


def status_options(launcher: Launcher) -> None:
    own = f"team={launcher.namespace}"
    assert launcher.run("status", "-A", "-l", own, "-o", "name").out == "parts\n"
    assert launcher.run("status", "-A", "-l", f"{own},team!={launcher.namespace}").out == "no runs found\n"
    head, row = launcher.run("status", "--all-namespaces", "--selector", own).out.splitlines()
    assert head.split()[:3] == ["NAMESPACE", "RUN", "KIND"]
    assert row.split()[:5] == [launcher.namespace, "parts", "Job", "0/2", "done"]
    wrong = launcher.run("status", "-n", launcher.namespace, "-l", "=x")
    assert (wrong.code, '-l "=x" is not a label selector' in wrong.err) == (2, True), wrong.err
    wide = launcher.run("status", "parts", "-n", launcher.namespace, "-o", "wide").out
    for pod in launcher.pods():
        entries = json.loads(pod["metadata"]["annotations"][STATUS_ANNOTATION])
        (net1,) = [one["ips"][0] for one in entries if one["interface"] == "net1"]
        (line,) = [line for line in wide.splitlines() if pod["metadata"]["name"] in line]
        assert line.endswith(f"{pod['status']['podIP']}  net1 {net1}")
    assert launcher.cluster.worker_image in wide


def log_options(launcher: Launcher, age: float) -> None:
    where = ("-n", launcher.namespace)
    last = launcher.run("logs", "parts", *where, "-c", "worker", "--ranks", "1", "--tail", "20")
    assert last.out == launcher.run("logs", "parts", *where, "-c", "worker", "--ranks", "1").out
    for rank in (0, 1):
        one = launcher.run("logs", "parts", *where, "-c", "worker", "--ranks", str(rank), "--tail", "0")
        assert (one.code, one.out) == (0, "")
    prepared = launcher.run("logs", "parts", *where, "-c", "prepare")
    assert (prepared.code, prepared.out) == (0, "")
    for rank in (0, 1):
        assert f"torchnet: parts-{rank}: discover: " in prepared.err
    whole = launcher.run("logs", "parts", *where, "--since", f"{age + 60:.0f}s")
    assert whole.out.count("last line") == 2
    until(lambda: launcher.run("logs", "parts", *where, "--since", "1s").out == "", "no new lines", 30, SLOW)


@concurrent
def test_pods_with_a_drivers_volume_meet_pod_security(launcher: Launcher) -> None:
    """No driver is installed here: the API server checks what a kubelet would ask one for."""
    volume = "csi:inline.storage.kubernetes.io,fsType=ext4,nodePublishSecretRef=keys,share=/a:b:/data:ro"
    words = launcher.words("--kind", "pods", "--dry-run", "-o", "json", "--volume", volume, nnodes=2)
    shown = launcher.run(*words, launcher.script(LOOKS))
    assert shown.code == 0, shown.err
    items = [one for one in json.loads(shown.out)["items"] if one["kind"] == "Pod"]
    for pod in items:
        pod["spec"].pop("serviceAccountName", None)
    words = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
    taken = json.loads(launcher.cluster.kubectl(*words, input=json.dumps(items[0])))
    (found,) = [one for one in taken["spec"]["volumes"] if "csi" in one]
    assert found["csi"] == {
        "driver": "inline.storage.kubernetes.io",
        "readOnly": True,
        "fsType": "ext4",
        "nodePublishSecretRef": {"name": "keys"},
        "volumeAttributes": {"share": "/a:b"},
    }
