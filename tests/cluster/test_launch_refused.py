"""What a cluster refuses, and what never starts: told with the reason, within its deadline, and nothing left."""

from __future__ import annotations

import json
import re
from itertools import pairwise

from tests.cluster import addons
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.user import someone
from tests.jobs import SLOW, until

SCRIPT = "print('hello', flush=True)\n"


@concurrent
def test_an_image_that_does_not_exist(launcher: Launcher) -> None:
    script = launcher.script(SCRIPT)
    words = launcher.words("--start-timeout", "25s", nnodes=2, image="127.0.0.1:1/nosuch/image:1")
    ran = launcher.run(*words, script)
    assert ran.code == 124, ran.err
    assert "ErrImagePull" in ran.err or "ImagePullBackOff" in ran.err
    assert "127.0.0.1:1/nosuch/image:1" in ran.err
    # The kubelet alternates between ErrImagePull and ImagePullBackOff.
    notices = re.findall(r"(?m)^torchnet: \S+-0: .*", ran.err)
    assert notices
    assert all(one != other for one, other in pairwise(notices)), "once per change"
    assert 25 < ran.seconds < 45
    assert launcher.left() == []


@concurrent
def test_what_never_starts_stays_as_it_is_if_it_is_to(launcher: Launcher) -> None:
    """Its pods end where they are, and the Job makes no others."""
    words = ("--run-id", "kept", "--keep", "--start-timeout", "5s")
    made = launcher.words(*words, nnodes=2, image="127.0.0.1:1/nosuch/image:1")
    ran = launcher.run(*made, launcher.script(SCRIPT))
    assert ran.code == 124, ran.err
    assert "the run kept is still there" in ran.err
    ends = [(one["status"]["phase"], one["status"].get("reason")) for one in launcher.pods()]
    assert ends == [("Failed", "DeadlineExceeded")] * 2
    job = ("get", "job", "kept", "-n", launcher.namespace, "-o", "jsonpath={.status.conditions[*].type}")
    until(lambda: "Failed" in launcher.cluster.kubectl(*job), "the Job's failure", 10, SLOW)
    assert launcher.run("down", "kept", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_an_attachment_that_does_not_exist(launcher: Launcher) -> None:
    ran = launcher.run(*launcher.words(network="nosuch"), launcher.script(SCRIPT))
    assert ran.code == 4, ran.err
    assert "network attachment nosuch" in ran.err
    assert "available: backend-network" in ran.err
    assert launcher.left() == []


@concurrent
def test_an_attachment_that_no_pod_can_use_and_one_without_free_addresses(launcher: Launcher) -> None:
    cluster, namespace = launcher.cluster, launcher.namespace
    small = addons.attachment(namespace, "--name", "small", "--range", "fcbb:0:804::/125")
    faulty = small.replace("name: small", "name: faulty").replace('"cniVersion": "1.0.0",', "")
    assert faulty.count("cniVersion") < small.count("cniVersion")
    leases = {
        str(key): {"id": "s", "podref": f"{namespace}/gone-{key}", "ifname": "net1"} for key in range(1, 5)
    }
    pool = {
        "apiVersion": "whereabouts.cni.cncf.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": "fcbb-0-804---125", "namespace": "kube-system"},
        "spec": {"range": "fcbb:0:804::/125", "allocations": leases},
    }
    cluster.kubectl("create", "-f", "-", input=f"{small}\n---\n{faulty}")
    cluster.kubectl("create", "-f", "-", input=json.dumps(pool))
    script = launcher.script(SCRIPT)
    try:
        ran = launcher.run(*launcher.words(network="faulty"), script)
        assert (ran.code, f"network attachment {namespace}/faulty: cniVersion: missing" in ran.err) == (
            4,
            True,
        ), ran.err
        ran = launcher.run(*launcher.words(network="small"), script)
        said = "4 workers, 2 addresses free of 6 in fcbb:0:804::/125, 4 held by pods that are gone"
        assert (ran.code, said in " ".join(ran.err.split())) == (4, True), ran.err
        assert f"torchnet network show {namespace}/small" in ran.err
    finally:
        cluster.kubectl("delete", "-f", "-", input=json.dumps(pool))
    assert launcher.left() == []


@concurrent
def test_a_quota_of_zero(launcher: Launcher) -> None:
    launcher.cluster.kubectl("create", "quota", "none", "-n", launcher.namespace, "--hard=pods=0")
    quota = ("get", "quota", "none", "-n", launcher.namespace)
    until(lambda: "pods: 0/0" in launcher.cluster.kubectl(*quota), "the quota's first count", pause=SLOW)
    ran = launcher.run(*launcher.words(), launcher.script(SCRIPT))
    assert ran.code == 3, ran.err
    assert "exceeded quota: none" in ran.err
    assert "kubectl describe quota" in ran.err
    assert launcher.left() == []


@concurrent
def test_more_than_any_node_has(launcher: Launcher) -> None:
    ran = launcher.run(
        *launcher.words("--start-timeout", "8s", "--cpus", "900", nnodes=1), launcher.script(SCRIPT)
    )
    assert ran.code == 124, ran.err
    assert "Insufficient cpu" in ran.err
    assert launcher.left() == []


@concurrent
def test_what_pod_security_forbids_is_refused_before_anything_exists(launcher: Launcher) -> None:
    """The Job itself is taken by such a namespace; only its pods would not be."""
    ran = launcher.run(*launcher.words("--run-as", "0"), launcher.script(SCRIPT))
    assert ran.code == 3, ran.err
    assert "violates PodSecurity" in ran.err
    assert "not allowed" not in ran.err
    assert launcher.left() == []


@concurrent
def test_a_namespace_that_does_not_exist(launcher: Launcher) -> None:
    words = launcher.words()
    words[words.index("-n") + 1] = "no-such-namespace"
    ran = launcher.run(*words, launcher.script(SCRIPT))
    assert ran.code == 3, ran.err
    assert 'namespaces "no-such-namespace" not found' in ran.err
    assert "kubectl create namespace no-such-namespace" in ran.err


@concurrent
def test_a_namespace_without_rights(launcher: Launcher) -> None:
    user = someone(launcher)
    ran = launcher.run(*launcher.words("--kubeconfig", user), launcher.script(SCRIPT))
    assert ran.code == 3, ran.err
    assert "not allowed to create" in ran.err
    assert f"kubectl auth can-i create configmaps -n {launcher.namespace}" in ran.err
    assert launcher.left() == []
