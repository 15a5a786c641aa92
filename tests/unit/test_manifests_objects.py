"""What must hold for every object of every manifest, whatever the options."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from torchnet.manifests.crds import attachments, pools, reservations, slice_pools
from torchnet.manifests.flags import parse
from torchnet.manifests.options import BACKEND, EXAMPLE, MULTUS, NAMES, RBAC, WHEREABOUTS
from torchnet.manifests.render import render

Object = dict[str, Any]
MIRROR = "mirror.example:5000/all"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

SLICES = ["node1=fcbb:0:800:ffff:1::/80", "node2.example=fcbb:0:800:ffff:2::/80"]
CASES: list[tuple[str, dict[str, Any]]] = [
    (MULTUS, {}),
    (WHEREABOUTS, {}),
    (RBAC, {"namespace": "ml"}),
    *((BACKEND, {"kind": kind}) for kind in ("ipvlan", "macvlan", "bridge")),
    *((BACKEND, {"kind": "macvlan", "mode": mode}) for mode in ("private", "vepa")),
    *((BACKEND, {"mode": mode, "slices": SLICES}) for mode in ("l2", "l3", "l3s")),
    *((BACKEND, {"kind": kind, "slices": SLICES}) for kind in ("macvlan", "bridge")),
    (BACKEND, {"ipam": "static", "name": "a" * 56, "namespace": "b" * 63}),
    (BACKEND, {"range": "10.0.0.0/24", "mtu": "1500", "exclude": ["10.0.0.0/28", "10.0.0.7/32"]}),
    (BACKEND, {"range": "10.0.0.0/24", "slices": ["a=10.0.0.0/25", "b=10.0.0.128/25"]}),
    (BACKEND, {"log_file": "/var/log/whereabouts.log", "master": "bond0.100"}),
    (EXAMPLE, {}),
    (EXAMPLE, {"namespace": "ml", "network": "networks/rail-1", "workers": "1"}),
    (EXAMPLE, {"namespace": "ml", "network": "rail-1", "workers": "100"}),
    (EXAMPLE, {"ipam": "static", "range": "10.1.0.0/16"}),
    (EXAMPLE, {"ipam": "static", "network": "backend-network-static", "namespace": "ml"}),
]
IDS = [f"{name} {' '.join(f'{k}={v}' for k, v in given.items())}"[:60] for name, given in CASES]


def objects(name: str, given: dict[str, Any]) -> list[Object]:
    return [dict(manifest.body) for manifest in render(name, parse(name, given))[0]]


def pod_specs(body: Object) -> Iterator[Object]:
    if body["kind"] == "Pod":
        yield body["spec"]
    elif body["kind"] in ("DaemonSet", "Deployment"):
        yield body["spec"]["template"]["spec"]


def containers(body: Object) -> Iterator[Object]:
    for spec in pod_specs(body):
        yield from (*spec["containers"], *spec.get("initContainers", []))


def configurations(all_objects: list[Object]) -> list[Object]:
    """The CNI configurations of a manifest, of the attachment itself and of the nodes' files."""
    texts = [body["spec"]["config"] for body in all_objects if "config" in body.get("spec", {})]
    for body in all_objects:
        if body["kind"] == "ConfigMap":
            texts += [text for key, text in body["data"].items() if key.endswith(".conflist")]
    return [json.loads(text) for text in texts]


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
    if name != RBAC:
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


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_configuration_gives_a_network_status_entry(name: str, given: dict[str, Any]) -> None:
    found = configurations(objects(name, given))
    assert bool(found) == (name == BACKEND)
    for configuration in found:
        assert tuple(int(part) for part in configuration["cniVersion"].split(".")) >= (0, 3, 1)
        assert configuration["name"] == given.get("name", "backend-network")
        main, *others = configuration["plugins"]
        assert main["type"] == given.get("kind", "ipvlan")
        assert "enable_ipv6" not in json.dumps(configuration)
        for range_ in ranges(main["ipam"]):
            assert str(ipaddress.ip_network(range_)) == range_
        assert main.get("capabilities") == ({"ips": True} if given.get("ipam") == "static" else None)
        version = ipaddress.ip_network(given.get("range", "fcbb::/64")).version
        sysctl = {"net.ipv6.conf.IFNAME.accept_ra": "0", "net.ipv6.conf.IFNAME.ndisc_notify": "1"}
        assert others == ([{"type": "tuning", "sysctl": sysctl}] if version == 6 else [])


def ranges(ipam: Object) -> list[str]:
    subnets = [one["subnet"] for ranges_ in ipam.get("ranges", []) for one in ranges_]
    routes = [route["dst"] for route in ipam.get("routes", [])]
    whole = [ipam["range"]] if "range" in ipam else []
    return [*whole, *ipam.get("exclude", []), *subnets, *routes]


def test_addresses_of_the_nodes_parts_never_meet() -> None:
    for mode in ("l2", "l3"):
        used = []
        for configuration in configurations(objects(BACKEND, {"mode": mode, "slices": SLICES})):
            ((one,),) = configuration["plugins"][0]["ipam"]["ranges"]
            subnet = ipaddress.IPv6Network(one["subnet"])
            first = ipaddress.IPv6Address(one.get("rangeStart", subnet[1]))
            last = ipaddress.IPv6Address(one.get("rangeEnd", subnet[-1]))
            assert first in subnet
            assert last in subnet
            used.append((int(first), int(last)))
        (_, before), (after, _) = sorted(used)
        assert before < after


def test_in_l2_all_pods_are_on_one_link_and_in_l3_a_route_leads_to_the_others() -> None:
    flat, routed = (
        configurations(objects(BACKEND, {"mode": mode, "slices": SLICES})) for mode in ("l2", "l3")
    )
    for configuration in flat:
        ipam = configuration["plugins"][0]["ipam"]
        assert ipam["ranges"][0][0]["subnet"] == "fcbb:0:800:ffff::/64"
        assert "routes" not in ipam
    subnets = []
    for configuration in routed:
        ipam = configuration["plugins"][0]["ipam"]
        assert ipam["routes"] == [{"dst": "fcbb:0:800:ffff::/64"}]
        subnets.append(ipam["ranges"][0][0]["subnet"])
    assert subnets == [part.partition("=")[2] for part in SLICES]


def test_an_ipv4_part_leaves_out_what_is_no_address() -> None:
    given = {"range": "10.0.0.0/24", "slices": ["a=10.0.0.0/25", "b=10.0.0.128/25"]}
    ends = [
        (one["rangeStart"], one["rangeEnd"])
        for configuration in configurations(objects(BACKEND, given))
        for ((one,),) in [configuration["plugins"][0]["ipam"]["ranges"]]
    ]
    assert ends == [("10.0.0.1", "10.0.0.127"), ("10.0.0.129", "10.0.0.254")]


def test_an_attachment_with_parts_has_no_spec_and_the_files_its_name() -> None:
    attachment, files, daemon = objects(BACKEND, {"name": "rail-2", "slices": SLICES})
    assert "spec" not in attachment
    assert list(files["data"]) == ["node1.conflist", "node2.example.conflist"]
    variables = {one["name"]: one.get("value") for one in next(containers(daemon))["env"]}
    assert variables["SOURCE"] == "/slices/$(NODE_NAME).conflist"
    assert variables["TARGET"] == "/host/etc/cni/multus/net.d/rail-2.conflist"


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


@pytest.mark.parametrize("given", [{}, {"ipam": "static", "workers": "3"}], ids=str)
def test_the_examples_pods_fit_pod_security_restricted(given: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, its table of "Restricted"."""
    pods = [body for body in objects(EXAMPLE, given) if body["kind"] == "Pod"]
    assert [pod["metadata"]["name"] for pod in pods][:2] == ["pytorch-training", "pytorch-worker-0"]
    for pod in pods:
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "projected", "secret", "downwardAPI", "csi", "ephemeral"}
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in security


def networks(pod: Object) -> Object:
    (one,) = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    return dict(one)


def environment(pod: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}


def test_the_examples_pods_are_one_group() -> None:
    pods = [body for body in objects(EXAMPLE, {"workers": "3"}) if body["kind"] == "Pod"]
    assert [environment(pod)["RANK"] for pod in pods] == ["0", "1", "2", "3"]
    assert {environment(pod)["WORLD_SIZE"] for pod in pods} == {"4"}
    assert {environment(pod)["GLOO_SOCKET_IFNAME"] for pod in pods} == {"net1"}
    assert {environment(pod)["NCCL_SOCKET_IFNAME"] for pod in pods} == {"=net1"}
    assert all(
        networks(pod) == {"name": "backend-network", "namespace": "default", "interface": "net1"}
        for pod in pods
    )


def test_only_the_init_container_has_a_token_and_it_can_get_these_pods_alone() -> None:
    everything = objects(EXAMPLE, {})
    (role,) = [body for body in everything if body["kind"] == "Role"]
    pods = [body for body in everything if body["kind"] == "Pod"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "verbs": ["get"],
            "resourceNames": [pod["metadata"]["name"] for pod in pods],
        }
    ]
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        with_token = [c["name"] for c in containers(pod) if "token" in {m["name"] for m in c["volumeMounts"]}]
        assert with_token == ["discover"]


@pytest.mark.parametrize("range_", ["fcbb:0:800:ffff::/64", "10.1.0.0/16", "10.1.0.0/28"])
def test_fixed_addresses_have_a_prefix_length_and_need_no_rights(range_: str) -> None:
    everything = objects(EXAMPLE, {"ipam": "static", "range": range_})
    assert {body["kind"] for body in everything} == {"ConfigMap", "Pod"}
    pods = [body for body in everything if body["kind"] == "Pod"]
    asked = [ipaddress.ip_interface(address) for pod in pods for address in networks(pod)["ips"]]
    assert all("/" in address for pod in pods for address in networks(pod)["ips"])
    assert {address.network for address in asked} == {ipaddress.ip_network(range_)}
    assert len({address.ip for address in asked}) == len(pods)
    half = ipaddress.ip_network(range_).num_addresses // 2
    lowest = int(ipaddress.ip_network(range_).network_address)
    assert all(int(address.ip) - lowest > half for address in asked), "Whereabouts gives out the lower ones"
    assert {environment(pod)["MASTER_ADDR"] for pod in pods} == {str(asked[0].ip)}
    for pod in pods:
        aliases = {one["ip"]: one["hostnames"] for one in pod["spec"]["hostAliases"]}
        names = [f"{other['metadata']['name']}-net1" for other in pods]
        assert aliases == {str(address.ip): [name] for address, name in zip(asked, names, strict=True)}


def test_rights_are_what_is_used_and_no_more() -> None:
    for name in (MULTUS, WHEREABOUTS, RBAC, EXAMPLE):
        for body in objects(name, {}):
            for rule in body.get("rules", []):
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
                assert not {"secrets", "pods/exec", "configmaps"} & set(rule["resources"])


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
