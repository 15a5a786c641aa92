"""What the agent relies on in the API server: the same tests for the one in tests/api_server.py and for a real one.

A module that takes them over with ``from tests.api_contract import *`` gives a fixture ``world``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from torchnet.agent.kube_api import ApiServer, Ask, DeniedError
from torchnet.agent.pod_address_source import Own, PodSource
from torchnet.constants import INDEX_LABEL, NETWORKS_ANNOTATION, NODE_RANK_LABEL, RUN_LABEL, STATUS_ANNOTATION
from torchnet.errors import ClusterError, NotYetError, StatusError
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import StatusEntry, render

__all__ = [
    "test_a_name_that_helps_not_gives_way_to_the_address",
    "test_a_pod_is_answered_with_its_metadata_alone",
    "test_an_account_without_rights_is_told_what_is_missing",
    "test_an_unknown_token_is_told",
    "test_no_pod_of_that_name_is_no_error",
    "test_pods_that_have_ended_or_are_ending_are_not_rank_0",
    "test_rank_0_is_found_by_the_labels_that_the_own_pod_has",
    "test_without_a_status_the_pod_is_told_after_a_while",
]


@dataclass(frozen=True)
class PodState:
    """How far a pod is."""

    phase: str = "Running"
    address: str = ""
    ending: bool = False


RUNNING = PodState()


class World(Protocol):
    """An API server and pods in it that a test makes; they go when it ends."""

    namespace: str

    def api(self, account: str) -> ApiServer:
        """As it is seen with the account ``good``, ``forbidden`` or ``unknown``."""

    def put(
        self, name: str, labels: dict[str, str], annotations: dict[str, str], state: PodState = RUNNING
    ) -> None: ...


def status(address: str, frontend: str = "10.0.0.9") -> str:
    """A pod's network-status: eth0 with ``frontend``, and net1 with ``address``."""
    return render((StatusEntry("cilium", "eth0", (frontend,)), StatusEntry("ml/net", "net1", (address,))))


def patiently(question: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return question()
        except NotYetError as error:
            assert time.monotonic() < deadline
            time.sleep(error.seconds)


def source(world: World, account: str = "good", **own: Any) -> PodSource:
    return PodSource(world.api(account), Own(world.namespace, **own), (NetworkAttachment("ml", "net"),))


def test_a_pod_is_answered_with_its_metadata_alone(world: World) -> None:
    world.put("one", {"a": "b"}, {STATUS_ANNOTATION: status("fd00::1"), "weird": "\n\"'$(x)\u202e"})
    found = world.api("good").get(Ask(world.namespace, "one"))
    assert found is not None
    assert found["kind"] == "PartialObjectMetadata"
    assert "spec" not in found
    assert found["metadata"]["labels"]["a"] == "b"
    assert found["metadata"]["annotations"]["weird"] == "\n\"'$(x)\u202e"
    listed = world.api("good").get(Ask(world.namespace, labels="a=b"))
    assert listed is not None
    assert listed["kind"] == "PartialObjectMetadataList"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["one"]
    assert "spec" not in listed["items"][0]


def test_no_pod_of_that_name_is_no_error(world: World) -> None:
    assert world.api("good").get(Ask(world.namespace, "nobody")) is None
    found = world.api("good").get(Ask(world.namespace, labels="a=nobody"))
    assert found is not None
    assert not found["items"]  # null, in fact


def test_rank_0_is_found_by_the_labels_that_the_own_pod_has(world: World) -> None:
    cases: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "run": ({RUN_LABEL: "r", INDEX_LABEL: "1"}, {RUN_LABEL: "r", INDEX_LABEL: "0"}),
        "plain": ({RUN_LABEL: "p", NODE_RANK_LABEL: "1"}, {RUN_LABEL: "p", NODE_RANK_LABEL: "0"}),
        "own-job": (
            {"batch.kubernetes.io/job-name": "j", INDEX_LABEL: "1"},
            {"batch.kubernetes.io/job-name": "j", INDEX_LABEL: "0"},
        ),
    }
    for number, (name, (own, zero)) in enumerate(cases.items(), 1):
        world.put(f"{name}-0", zero, {STATUS_ANNOTATION: status(f"fd00:{number}::a")})
        world.put(f"{name}-1", own, {STATUS_ANNOTATION: status(f"fd00:{number}::1")})
    for number, name in enumerate(cases, 1):
        seen = source(world, name=f"{name}-1")
        assert [entry.ips for entry in patiently(seen.attachments)] == [(f"fd00:{number}::1",)]
        assert patiently(seen.rank0) == (f"fd00:{number}::a",)


def test_pods_that_have_ended_or_are_ending_are_not_rank_0(world: World) -> None:
    labels = {RUN_LABEL: "r", INDEX_LABEL: "0"}
    world.put("own", {RUN_LABEL: "r", INDEX_LABEL: "1"}, {STATUS_ANNOTATION: status("fd00::1")})
    world.put("failed", labels, {STATUS_ANNOTATION: status("fd00::f")}, PodState("Failed"))
    world.put("ending", labels, {STATUS_ANNOTATION: status("fd00::e")}, PodState(ending=True))
    seen = source(world, name="own")
    with pytest.raises(NotYetError, match="rank 0's pod does not exist yet"):
        seen.rank0()
    world.put("new", labels, {STATUS_ANNOTATION: status("fd00::a")})
    assert patiently(seen.rank0) == ("fd00::a",)


def test_a_name_that_helps_not_gives_way_to_the_address(world: World) -> None:
    world.put("pod-x7k2p", {}, {STATUS_ANNOTATION: status("fd00::1")}, PodState(address="10.244.77.7"))
    seen = source(world, hostname="pod-1", address=lambda: "10.244.77.7")
    assert [entry.ips for entry in patiently(seen.attachments)] == [("fd00::1",)]


def test_without_a_status_the_pod_is_told_after_a_while(world: World) -> None:
    world.put("one", {}, {NETWORKS_ANNOTATION: "ml/net@net1"})
    began = time.monotonic()
    with pytest.raises(StatusError, match="Multus did not") as caught:
        patiently(source(world, name="one").attachments)
    assert 4 < time.monotonic() - began < 20
    assert "kubectl describe pod one" in caught.value.fix


def test_an_account_without_rights_is_told_what_is_missing(world: World) -> None:
    world.put("one", {}, {})
    with pytest.raises(DeniedError, match=f"get pods one in namespace {world.namespace}: 403") as caught:
        world.api("forbidden").get(Ask(world.namespace, "one"))
    assert "--service-account" in caught.value.fix
    with pytest.raises(DeniedError, match=r"list pods \(a=b\) in namespace .*: 403"):
        world.api("forbidden").get(Ask(world.namespace, labels="a=b"))


def test_an_unknown_token_is_told(world: World) -> None:
    with pytest.raises(ClusterError, match="401") as caught:
        world.api("unknown").get(Ask(world.namespace, "one"))
    assert "service account's token" in caught.value.fix
