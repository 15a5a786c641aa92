"""What must hold for every object of every manifest, whatever the options."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.manifested import CASES, IDS, Object, containers, objects, pod_specs
from torchnet.k8s.addons.addon_options import MULTUS, NAMES, POLICY, RBAC, WHEREABOUTS
from torchnet.k8s.addons.crds import attachments, pools, reservations, slice_pools

MIRROR = "mirror.example:5000/all"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def test_the_cases_cover_every_manifest() -> None:
    assert {name for name, _ in CASES} == set(NAMES)


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_container_has_requests_and_limits(name: str, given: dict[str, Any]) -> None:
    for body in objects(name, given):
        for container in containers(body):
            resources = container["resources"]
            assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
            for what in ("cpu", "memory"):
                assert 0 < size(resources["requests"][what]) <= size(resources["limits"][what])


def size(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9]+)(m|Mi|Gi|)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 0.001, "": 1, "Mi": 2**20, "Gi": 2**30}[unit]


@pytest.mark.parametrize("name", [MULTUS, WHEREABOUTS])
def test_what_runs_on_each_node_has_room(name: str) -> None:
    """Upstream's 50 MiB were too little for many pods at once."""
    for body in objects(name, {}):
        for container in containers(body):
            assert size(container["resources"]["limits"]["memory"]) >= 256 * 2**20


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_image_has_a_version_and_a_mirror(name: str, given: dict[str, Any]) -> None:
    images = [container["image"] for body in objects(name, given) for container in containers(body)]
    for image in images:
        assert re.fullmatch(
            r"(ghcr\.io|docker\.io)(/[a-z0-9-]+){2}:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.-]+)?", image
        )
        assert not re.search("latest|snapshot|stable|main", image)
    if name not in (RBAC, POLICY):
        mirrored = [
            container["image"]
            for body in objects(name, given | {"registry": f"{MIRROR}/"})
            for container in containers(body)
        ]
        assert mirrored == [f"{MIRROR}/{image.partition('/')[2]}" for image in images]


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_name_is_one_that_the_api_takes(name: str, given: dict[str, Any]) -> None:
    seen = set()
    for body in objects(name, given):
        metadata = body["metadata"]
        parts = (
            metadata["name"].split(".") if body["kind"] == "CustomResourceDefinition" else [metadata["name"]]
        )
        assert all(LABEL.fullmatch(part) for part in parts)
        assert LABEL.fullmatch(metadata.get("namespace", "x"))
        labels = metadata.get("labels", {}) | body.get("spec", {}).get("template", {}).get(
            "metadata", {}
        ).get("labels", {})
        assert all(LABEL.fullmatch(value) for value in labels.values())
        for spec in pod_specs(body):
            names = [
                one["name"]
                for one in (*spec["volumes"], *spec["containers"], *spec.get("initContainers", []))
            ]
            assert all(LABEL.fullmatch(one) for one in names)
            mounted = {m["name"] for c in containers(body) for m in c["volumeMounts"]}
            assert mounted == {volume["name"] for volume in spec["volumes"]}
        identity = (body["kind"], metadata.get("namespace"), metadata["name"])
        assert identity not in seen
        seen.add(identity)


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_what_is_referred_to_is_there(name: str, given: dict[str, Any]) -> None:
    """Service accounts, roles, ConfigMaps: each is in the manifest itself, or every namespace has it."""
    everything = objects(name, given)
    there = {
        (body["kind"], body["metadata"].get("namespace"), body["metadata"]["name"]) for body in everything
    }
    for body in everything:
        namespace = body["metadata"].get("namespace")
        if body["kind"].endswith("Binding"):
            assert (body["roleRef"]["kind"], namespace, body["roleRef"]["name"]) in there
            for subject in body["subjects"]:
                assert (subject["kind"], subject["namespace"], subject["name"]) in there
        for spec in pod_specs(body):
            if "serviceAccountName" in spec:
                assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in there
            for volume in spec["volumes"]:
                if "configMap" in volume:
                    assert ("ConfigMap", namespace, volume["configMap"]["name"]) in there
        if body["kind"] in ("DaemonSet", "Deployment"):
            template = body["spec"]["template"]["metadata"]["labels"]
            assert body["spec"]["selector"]["matchLabels"].items() <= template.items()


@pytest.mark.parametrize("name", [MULTUS, WHEREABOUTS])
def test_the_daemons_reach_every_node_and_outlive_pressure(name: str) -> None:
    (daemon,) = [body for body in objects(name, {}) if body["kind"] == "DaemonSet"]
    (spec,) = pod_specs(daemon)
    assert {(one["operator"], one["effect"]) for one in spec["tolerations"]} == {
        ("Exists", "NoSchedule"),
        ("Exists", "NoExecute"),
    }
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["hostNetwork"] is True
    assert daemon["metadata"]["labels"]["app"] == name.removesuffix("-install")
    assert daemon["spec"]["template"]["metadata"]["labels"]["app"] == name.removesuffix("-install")


NETWORKS = (["k8s.cni.cncf.io"], ["network-attachment-definitions"])
EVENTS = (["", "events.k8s.io"], ["events"])
POOLS = ["ippools", "overlappingrangeipreservations", "nodeslicepools"]
PODS = ["pytorch-training", "pytorch-worker-0", "pytorch-worker-1"]
# Word for word, so that a right more is a decision: what each program asks the API server for, by role.
RIGHTS: dict[tuple[str, str | None, str], list[tuple[Any, ...]]] = {
    ("ClusterRole", None, "multus"): [
        (*NETWORKS, ["get"]),
        ([""], ["pods"], ["get"]),
        ([""], ["pods/status"], ["update"]),
        (*EVENTS, ["create", "patch", "update"]),
    ],
    ("ClusterRole", None, "whereabouts-cni"): [
        (["whereabouts.cni.cncf.io"], POOLS, ["get", "list", "watch", "create", "update", "patch", "delete"]),
        ([""], ["pods"], ["get", "list", "watch"]),
        ([""], ["nodes"], ["get"]),
        (*NETWORKS, ["get", "list", "watch"]),
        (*EVENTS, ["get", "create", "patch", "update"]),
    ],
    ("Role", "kube-system", "whereabouts"): [
        (["coordination.k8s.io"], ["leases"], ["get", "create", "update"]),
    ],
    ("Role", "default", "torchnet"): [([""], ["pods"], ["get", "list"])],
    # People's, as the built-in role view gives them.
    ("ClusterRole", None, "torchnet-view-networks"): [(*NETWORKS, ["get", "list", "watch"])],
    ("Role", "default", "pytorch-example"): [([""], ["pods"], ["get"], PODS)],
}


def test_rights_are_what_is_used_and_no_more() -> None:
    keys = ("apiGroups", "resources", "verbs", "resourceNames")
    found = {}
    for name in NAMES:
        for body in objects(name, {}):
            if body["kind"] in ("Role", "ClusterRole"):
                assert all(set(rule) <= set(keys) for rule in body["rules"])
                rules = [tuple(rule[key] for key in keys if key in rule) for rule in body["rules"]]
                metadata = body["metadata"]
                found[body["kind"], metadata.get("namespace"), metadata["name"]] = rules
    assert found == RIGHTS


@pytest.mark.parametrize(
    "crd", [attachments(), pools(), reservations(), slice_pools()], ids=lambda c: c["metadata"]["name"]
)
def test_resources_are_structural(crd: Object) -> None:
    """https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources, "Specifying a structural schema"."""
    spec = crd["spec"]
    assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    (version,) = spec["versions"]
    assert version["served"] is version["storage"] is True

    def typed(schema: Object) -> None:
        assert schema["type"] in ("object", "array", "string")
        inner = [*schema.get("properties", {}).values()]
        inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
        assert set(schema.get("required", [])) <= set(schema.get("properties", {}))
        for one in inner:
            typed(one)

    typed(version["schema"]["openAPIV3Schema"])
