"""The objects of torchnet verify."""

from __future__ import annotations

import ast
import json
import sys
from typing import Any

import pytest

from tests.unit.pod_security import restricted
from tests.unit.verify_reports import NETWORK, OPTIONS
from torchnet.config.pod_user import DEFAULT_USER, PodUser
from torchnet.constants import LABEL_PREFIX, RUN_LABEL
from torchnet.k8s.verify.pods import PodOptions, apart, on_node, plan, pod, scripts
from torchnet.network.attachment import NetworkAttachment


def spec(options: PodOptions = OPTIONS, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod("verify-1", "ml", 1, options, **more)["spec"]
    return found


def test_they_bear_the_label_and_meet_restricted() -> None:
    made = pod("verify-1", "ml", 1, OPTIONS)
    for one in (made, scripts("verify-1", "ml")):
        assert one["metadata"]["labels"][RUN_LABEL] == "verify-1"
    assert list(restricted(made["spec"])) == []
    container = made["spec"]["containers"][0]
    assert container["resources"]["limits"]
    assert container["resources"]["requests"]
    assert made["spec"]["automountServiceAccountToken"] is False


def test_without_options_the_pods_ask_for_nothing_special() -> None:
    assert not {"tolerations", "nodeSelector", "imagePullSecrets", "affinity"} & spec().keys()
    assert "kueue.x-k8s.io/queue-name" not in pod("v", "ml", 0, OPTIONS)["metadata"]["labels"]


def test_the_options_are_those_of_a_launch() -> None:
    options = PodOptions(
        [NETWORK],
        "x:1",
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        node_selector={"pool": "gpu"},
        image_pull_secrets=["registry"],
        queue="team",
    )
    found = spec(options)
    assert found["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert found["nodeSelector"] == {"pool": "gpu"}
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    made = pod("v", "ml", 0, options)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    for group, requested in ((OPTIONS, True), (options, False)):  # not every ClusterQueue covers it
        limits = spec(group)["containers"][0]["resources"]["limits"]
        assert ("ephemeral-storage" in limits) is requested


@pytest.mark.parametrize("user", [DEFAULT_USER, PodUser(None, None, None), PodUser(5001, 0, 7)], ids=str)
def test_their_user_is_that_of_a_launch(user: PodUser) -> None:
    found = spec(PodOptions([NETWORK], "x:1", user=user))
    assert list(restricted(found)) == []
    context = found["securityContext"]
    assert context.get("runAsUser") == user.uid
    assert context.get("runAsGroup") == user.gid
    assert context.get("fsGroup") == user.fs_group


def test_each_rail_is_requested_with_its_resource() -> None:
    rails = [NETWORK, NetworkAttachment("ml", "vf", "net2", "example.com/vf")]
    made = pod("v", "ml", 0, PodOptions(rails, "x:1"))
    entries = json.loads(made["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    assert [(one["name"], one["interface"]) for one in entries] == [
        ("backend-network", "net1"),
        ("vf", "net2"),
    ]
    container = made["spec"]["containers"][0]
    assert container["command"][-2:] == ["net1", "net2"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["example.com/vf"] == "1"


def test_where_they_run() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {RUN_LABEL: "v"}}}
    required = apart("v", required=True)["podAntiAffinity"]
    assert required == {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    preferred = apart("v", required=False)["podAntiAffinity"]
    assert list(preferred) == ["preferredDuringSchedulingIgnoredDuringExecution"]
    affinity = on_node("node7")["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["node7"]
    assert spec(affinity=on_node("node7"))["affinity"] == on_node("node7")


def test_the_plan_is_an_annotation_which_the_pod_has_as_a_file() -> None:
    steps = plan([{"partner": "v-0"}], 2, bandwidth=True)
    made = pod("v", "ml", 1, OPTIONS, steps=steps)
    (key,) = (name for name in made["metadata"]["annotations"] if name.startswith(LABEL_PREFIX))
    assert json.loads(made["metadata"]["annotations"][key]) == steps
    (volume,) = (one for one in made["spec"]["volumes"] if "downwardAPI" in one)
    assert volume["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == f"metadata.annotations['{key}']"
    assert key not in pod("v", "ml", 1, OPTIONS)["metadata"]["annotations"]


def test_bandwidth_takes_more_of_a_processor() -> None:
    limits = [spec(bandwidth=value)["containers"][0]["resources"]["limits"]["cpu"] for value in (False, True)]
    assert limits == ["500m", "4"]


def test_the_scripts_need_nothing_but_python() -> None:
    data = scripts("v", "ml")["data"]
    assert set(data) == {"probe.py", "net.py", "tcp.py"}
    own = {name.removesuffix(".py") for name in data}
    for text in data.values():
        for part in ast.walk(ast.parse(text)):
            names = [one.name for one in part.names] if isinstance(part, ast.Import) else []
            names += [str(part.module)] if isinstance(part, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names | own, name
