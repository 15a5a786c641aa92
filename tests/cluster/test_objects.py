"""A run's objects on a real API server with its controllers: who owns them, what their limits do, and old labels."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from typing import Any

import pytest

from tests.cluster.concurrency import concurrent
from tests.cluster.launched import Launched, pods
from tests.cluster.launcher import Launcher
from tests.jobs import SLOW, until
from torchnet.constants import OLD_RUN_LABEL

HELLO = """\
    import os
    print("hello", os.environ["RANK"], flush=True)
"""


def owners(launcher: Launcher, *names: str) -> dict[str, list[str]]:
    """KIND/NAME of the owners of these objects, and of all with a run's label."""
    words = ("get", *(names or launcher.left()), "-n", launcher.namespace, "-o", "json")
    found = json.loads(launcher.cluster.kubectl(*words))
    return {
        f"{one['kind']}/{one['metadata']['name']}": [
            f"{owner['kind']}/{owner['name']}" for owner in one["metadata"].get("ownerReferences", ())
        ]
        for one in found.get("items", [found])
    }


@concurrent
def test_a_job_with_much_code_and_fields_of_its_own_owns_all_its_objects(launcher: Launcher) -> None:
    """The code is in four ConfigMaps, and the workers are packed on one node."""
    content = random.Random(1).randbytes(2_900_000)
    (launcher.folder / "big.bin").write_bytes(content)
    (launcher.folder / ".torchnetignore").write_text("xdg\n*.json\n*.yaml\n")
    (launcher.folder / "job.yaml").write_text("spec: {activeDeadlineSeconds: 900}\n")
    text = """\
        import hashlib, os
        print(hashlib.sha256(open("big.bin", "rb").read()).hexdigest(), flush=True)
        print(os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks, flush=True)
    """
    kubectl = launcher.cluster.kubectl
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "disk"}}
    quota |= {"spec": {"hard": {"limits.ephemeral-storage": "200Mi", "requests.ephemeral-storage": "1Gi"}}}
    kubectl("create", "-n", launcher.namespace, "-f", "-", input=json.dumps(quota))
    counted = ("get", "quota", "disk", "-n", launcher.namespace)
    until(lambda: "0/200Mi" in kubectl(*counted), "the quota's first count", pause=SLOW)
    refused = launcher.run(*launcher.words("--run-id", "much", nnodes=2), launcher.script(text))
    assert (refused.code, "exceeded quota: disk" in refused.err) == (3, True), refused.err
    words = ["--job-template", "job.yaml", "--spread", "pack", "--shm-size", "8Mi", "--keep"]
    words += ["--ephemeral-storage", "20Mi:90Mi", "--run-id", "much"]
    ran = launcher.run(*launcher.words(*words, nnodes=2), launcher.script(text))
    assert ran.code == 0, ran.err
    assert ran.out.count(hashlib.sha256(content).hexdigest()) == 2
    assert ran.out.count(str(8 << 20)) == 2
    made = pods(launcher, "much")
    assert len({pod["spec"]["nodeName"] for pod in made}) == 1
    for pod in made:
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            assert container["resources"]["limits"]["ephemeral-storage"] == "90Mi"
        assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "much"
    job = json.loads(kubectl("get", "job", "much", "-n", launcher.namespace, "-o", "json"))
    assert job["spec"]["activeDeadlineSeconds"] == 900
    found = owners(launcher)
    maps = [name for name in found if name.startswith("ConfigMap/")]
    assert maps == ["ConfigMap/much-code", *(f"ConfigMap/much-code-{number}" for number in (1, 2, 3))]
    assert found.pop("Job/much") == []
    assert set(map(tuple, found.values())) == {("Job/much",)}
    kubectl("delete", "job", "much", "-n", launcher.namespace, "--wait=false")
    until(lambda: launcher.left() == [], "the garbage collector", 60, SLOW)


@pytest.mark.parametrize("form", ["job", "jobset"])
@concurrent
def test_a_detached_run_is_deleted_some_time_after_its_end(
    launcher: Launcher, jobset: None, form: str
) -> None:
    words = launcher.words("--kind", form, "--ttl", "1min", "--detach", "--run-id", "ends", nnodes=2)
    ran = launcher.run(*words, launcher.script(HELLO))
    assert ran.code == 0, ran.err
    kubectl, where = launcher.cluster.kubectl, (form, "ends", "-n", launcher.namespace)
    spec = json.loads(kubectl("get", *where, "-o", "json"))["spec"]
    assert spec["ttlSecondsAfterFinished"] == 60
    assert launcher.run("attach", "ends", "-n", launcher.namespace).code == 0
    assert len(owners(launcher)) > 5
    # The rest of the minute is skipped.
    kubectl("patch", *where, "--type=merge", "-p", '{"spec":{"ttlSecondsAfterFinished":1}}')
    until(lambda: launcher.left() == [], "the controllers", 60, SLOW)


@concurrent
def test_many_plain_pods_and_all_else_belong_to_one_configmap(launcher: Launcher) -> None:
    """Without nodes that would run them."""
    words = ("--kind", "pods", "--node-selector", "no=such", "--run-id", "many")
    process = launcher.start(*launcher.words(*words, nnodes=17), launcher.script(HELLO))
    try:
        until(lambda: len(launcher.pods()) == 17, "the pods", 90, SLOW)
        found = owners(launcher)
        assert found.pop("ConfigMap/many-code") == []
        assert set(map(tuple, found.values())) == {("ConfigMap/many-code",)}
        assert len(found) >= 17 + 2
        launcher.cluster.kubectl("delete", "configmap", "many-code", "-n", launcher.namespace)
        until(lambda: launcher.left() == [], "the garbage collector", 60, SLOW)
    finally:
        launcher.signalled(process, signal.SIGINT)
    assert launcher.left() == []


STAYS = """\
    import signal, time
    def stop(*_):
        print("saving", flush=True)
        time.sleep(8)
        print("saved", flush=True)
        raise SystemExit(0)
    signal.signal(signal.SIGTERM, stop)
    print("begun", flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("form", ["job", "pods"])
@concurrent
def test_what_protects_the_pods_outlives_them(launcher: Launcher, form: str) -> None:
    """While they save their state, their ports stay closed."""

    def protection() -> list[str]:
        words = ("get", "networkpolicies,secrets", "-n", launcher.namespace, "-l", "torchnet.alt/run=stays")
        return launcher.cluster.kubectl(*words, "-o", "name").split()

    def jobs() -> str:
        return launcher.cluster.kubectl("get", "jobs", "-n", launcher.namespace, "-o", "name")

    there = ["networkpolicy.networking.k8s.io/stays", "secret/stays-token"]
    with Launched(launcher, "stays", STAYS, "--grace", "20", "--kind", form) as job:
        for rank in range(2):
            job.wait_for(rf"\[rank {rank}\] begun", on="stdout")
        assert protection() == there
        job.send(signal.SIGINT)
        job.wait_for("saving", on="stdout")
        until(lambda: not jobs(), "the Job's deletion", 5, SLOW)
        seen = [(protection(), len(launcher.pods()))]
        while seen[-1][1]:
            seen.append((protection(), len(launcher.pods())))
        done = job.finish()
    assert done.code == 130, done.stderr
    assert done.stdout.count("saved") == 2
    assert len(seen) > 3
    # While there were pods afterwards, all of it was there.
    assert [one for one, count in seen if count and one != there] == []
    assert launcher.left() == []


@concurrent
def test_a_run_of_version_0_1_is_found_under_its_label(launcher: Launcher) -> None:
    words = launcher.words("--run-id", "older", "--dry-run", "-o", "json", nnodes=2)
    text = launcher.run(*words, launcher.script(HELLO)).out
    objects: dict[str, Any] = json.loads(text.replace("torchnet.alt/", "torchnet/"))
    launcher.cluster.kubectl("create", "-f", "-", input=json.dumps(objects))
    where = ("older", "-n", launcher.namespace)
    ran = launcher.run("attach", *where)
    assert ran.code == 0, ran.err
    assert sorted(ran.out.splitlines()) == ["[rank 0] hello 0", "[rank 1] hello 1"]
    (row,) = json.loads(launcher.run("status", *where, "-o", "json").out)
    assert (row["state"], row["exit_code"], len(row["workers"])) == ("done", 0, 2)
    assert "hello 1" in launcher.run("logs", *where).out
    old = f"{OLD_RUN_LABEL}=older"
    assert len(launcher.cluster.run_objects(old, launcher.namespace)) > 5
    done = launcher.run("down", *where)
    assert done.code == 0, done.err
    assert launcher.cluster.run_objects(old, launcher.namespace) == []


@concurrent
def test_a_worker_that_fills_its_disk_is_evicted(launcher: Launcher) -> None:
    """The kubelet measures volumes once a minute."""
    text = """\
        import os, time
        if os.environ["RANK"] == "1":
            with open("fills", "wb") as file:
                file.write(os.urandom(1 << 20) * 96)
        time.sleep(300)
    """
    words = launcher.words("--ephemeral-storage", "16Mi:64Mi", "--grace", "2", "--json", "r.json", nnodes=2)
    ran = launcher.run(*words, launcher.script(text), timeout=240)
    assert ran.code == 70, ran.err
    assert 'evicted: Usage of EmptyDir volume "work" exceeds the limit "64Mi"' in ran.err
    assert "--ephemeral-storage" in ran.err
    assert launcher.left() == []
