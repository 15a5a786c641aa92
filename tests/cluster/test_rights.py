"""Users with the built-in role ``edit``; pods without a right on the API, which find rank 0 by its name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.cluster import control_plane
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher, Ran
from tests.cluster.user import someone
from torchnet.constants import API_DIR

# What a pod has of the API: a token's folder.
SCRIPT = f"""\
    import os
    print("trained", os.path.exists({API_DIR!r}), os.path.getsize("/torchnet-status/network-status") > 0, flush=True)
"""
RBAC = "roles,rolebindings,serviceaccounts"


@concurrent
def test_edit_alone_launches(launcher: Launcher) -> None:
    """No pod has a token, and no rights are made; what this user may not read is unknown, and no failure."""
    user, kubectl = someone(launcher, "edit"), launcher.cluster.kubectl
    before = kubectl("get", RBAC, "-n", launcher.namespace, "-o", "name")
    for form in ((), ("--kind", "pods")):
        ran = launcher.run(
            *launcher.words("--kubeconfig", user, "--keep", "--run-id", "kept", *form, nnodes=2),
            launcher.script(SCRIPT),
        )
        assert ran.code == 0, ran.err
        # The annotation has come by the time at which the script starts.
        assert ran.out.count("trained False True") == 2, ran.out
        assert "not allowed" not in ran.err.replace(UNREAD, "")
        specs = [pod["spec"] for pod in launcher.pods()]
        assert [spec.get("serviceAccountName") for spec in specs] == ["default", "default"]
        assert "serviceAccountToken" not in json.dumps(specs).replace("automountServiceAccountToken", "")
        assert kubectl("get", RBAC, "-n", launcher.namespace, "-o", "name") == before
        down = launcher.run("down", "kept", "-n", launcher.namespace, "--kubeconfig", user)
        assert (down.code, "not allowed" in down.err) == (0, False), down.err
        assert launcher.left() == []


UNREAD = "not allowed to get network-attachment-definitions"


@contextlib.contextmanager
def without_dns() -> Iterator[None]:
    control_plane.stop_dns()
    try:
        yield
    finally:
        control_plane.start_dns()


def test_without_dns(launcher: Launcher) -> None:
    """The error says so; with an account that may read pods, the API is asked instead."""
    kubectl, namespace = launcher.cluster.kubectl, launcher.namespace
    kubectl("create", "serviceaccount", "workers", "-n", namespace)
    kubectl("create", "role", "workers", "--verb=get,list", "--resource=pods", "-n", namespace)
    account = f"--serviceaccount={namespace}:workers"
    kubectl("create", "rolebinding", "workers", "--role=workers", account, "-n", namespace)

    def launch(*words: str) -> Ran:
        limit = ("--start-timeout", "12s")
        return launcher.run(*launcher.words(*limit, *words, nnodes=2), launcher.script(SCRIPT))

    with without_dns():
        alone, allowed = launch(), launch("--service-account", "workers")
    assert alone.code == 124, alone.err
    assert "cannot resolve train-" in alone.err
    assert "the API server is not asked" in alone.err
    assert "--service-account NAME" in alone.err
    assert allowed.code == 0, allowed.err
    assert allowed.out.count("trained") == 2
    assert launcher.left() == []
