"""JobSet's controller: its webhooks answer, and a gang of two runs on both nodes."""

from __future__ import annotations

import json

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.pods import staying


@concurrent
def test_a_jobset_runs_to_its_end(launcher: Launcher, jobset: None) -> None:
    namespace, kubectl = launcher.namespace, launcher.cluster.kubectl
    pod = staying("unused", "unused", namespace)
    pod["spec"].pop("nodeName")
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", "echo $JOB_COMPLETION_INDEX"]
    template = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    template["spec"]["restartPolicy"] = "Never"
    job = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "template": template}
    gang = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "gang", "namespace": namespace},
        "spec": {"replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}]},
    }
    kubectl("create", "-f", "-", input=json.dumps(gang))
    kubectl("-n", namespace, "wait", "--for=condition=Completed", "jobset/gang", "--timeout=90s")
    said = kubectl("-n", namespace, "logs", "-l", "jobset.sigs.k8s.io/jobset-name=gang")
    assert sorted(said.split()) == ["0", "1"]
