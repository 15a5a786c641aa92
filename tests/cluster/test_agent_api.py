"""The agent's questions on the real API server: the same contract that tests/api_server.py is held to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import api_contract
from tests.api_contract import RUNNING, PodState
from tests.cluster.cluster import Cluster
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.conftest import ROOT
from torchnet.agent.kube_api import ApiServer

_FINALIZER = "torchnet.test/stay"


class Real:
    """Pods that no node takes; their status is written by hand. The API server is reached from its own network."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, host: str, port: int) -> None:
        self.namespace = namespace
        self._cluster = cluster
        self._folder = folder
        self._at = host, port

    def api(self, account: str) -> ApiServer:
        place = self._folder / account
        if not place.exists():
            place.mkdir()
            token = "none" if account == "unknown" else self._kubectl("create", "token", account).strip()
            (place / "token").write_text(token)
            (place / "namespace").write_text(self.namespace)
            words = ("get", "configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}")
            (place / "ca.crt").write_text(self._kubectl(*words))
        return ApiServer(*self._at, str(place))

    def put(
        self, name: str, labels: dict[str, str], annotations: dict[str, str], state: PodState = RUNNING
    ) -> None:
        metadata: dict[str, Any] = {"name": name, "labels": labels, "annotations": annotations}
        if state.ending:
            metadata["finalizers"] = [_FINALIZER]
        container = {"name": "c", "image": "none"}
        spec = {"schedulerName": "nobody", "containers": [container], "automountServiceAccountToken": False}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self._kubectl("create", "-f", "-", input=json.dumps(pod))
        status: dict[str, Any] = {"phase": state.phase}
        if state.address:
            status |= {"podIP": state.address, "podIPs": [{"ip": state.address}]}
        self._kubectl("patch", "pod", name, "--subresource=status", "-p", json.dumps({"status": status}))
        if state.ending:
            self._kubectl("delete", "pod", name, "--wait=false", "--grace-period=0")

    def close(self) -> None:
        """Take away all pods."""
        patch = json.dumps({"metadata": {"finalizers": None}})
        if names := self._kubectl("get", "pods", "-o", "name").split():
            self._kubectl("patch", *names, "-p", patch)
            self._kubectl("delete", *names, "--ignore-not-found", "--force", "--grace-period=0")

    def _kubectl(self, *words: str, **fields: Any) -> str:
        return self._cluster.kubectl("-n", self.namespace, *words, **fields)


INSIDE = "TESTS_OF_TORCHNET_INSIDE"


@pytest.fixture(scope="module")
def accounts() -> Iterator[tuple[Cluster, str]]:
    """A namespace with an account that may read pods, and one that may not."""
    cluster = Cluster()
    with cluster.namespace(enforce="privileged", attachment=False, keeps_runs=True) as namespace:
        for name in ("good", "forbidden"):
            cluster.kubectl("-n", namespace, "create", "serviceaccount", name)
        rules = ("--verb=get,list", "--resource=pods")
        cluster.kubectl("-n", namespace, "create", "role", "good", *rules)
        bound = ("--role=good", f"--serviceaccount={namespace}:good")
        cluster.kubectl("-n", namespace, "create", "rolebinding", "good", *bound)
        yield cluster, namespace


@pytest.fixture
def world(accounts: tuple[Cluster, str], tmp_path: Path) -> Iterator[Real]:
    made = Real(*accounts, tmp_path, "10.96.0.1", 443)
    yield made
    made.close()


# The network of the API server is entered by a second pytest, which runs what is imported here.
if os.environ.get(INSIDE):
    from tests.api_contract import *  # noqa: F403
else:

    @concurrent
    def test_the_real_server_keeps_the_contract(launcher: Launcher) -> None:
        cluster = launcher.cluster
        words = ("-q", "-p", "no:cacheprovider", "-W", "ignore", str(Path(__file__).relative_to(ROOT)))
        done = subprocess.run(
            [*cluster.nsenter_prefix, sys.executable, "-m", "pytest", *words],
            cwd=ROOT,
            env={**os.environ, **cluster.environment(), INSIDE: "1", "TESTS_OF_TORCHNET_USE_CLUSTER": "1"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert f"{len(api_contract.__all__)} passed" in done.stdout
