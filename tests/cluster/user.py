"""A user of the cluster with few rights, or none."""

from __future__ import annotations

import json

from tests.cluster.launcher import Launcher


def someone(launcher: Launcher, role: str = "") -> str:
    """The path of a kubeconfig of somebody who has the ClusterRole ``role`` in the namespace, and nothing else."""
    namespace, kubectl = launcher.namespace, launcher.cluster.kubectl
    kubectl("create", "serviceaccount", "someone", "-n", namespace)
    if role:
        account = f"--serviceaccount={namespace}:someone"
        kubectl("create", "rolebinding", "someone", f"--clusterrole={role}", account, "-n", namespace)
    token = kubectl("create", "token", "someone", "-n", namespace).strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    path = launcher.folder / "someone.kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)
