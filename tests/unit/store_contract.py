"""What the launcher relies on in the API server: the same checks for tests/unit/api_store.py and for a real one.

``python -m tests.unit.store_contract NAMESPACE`` runs them against the cluster of KUBECONFIG.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from torchnet.k8s.client.api_client import MERGE_PATCH, METADATA, METADATA_OBJECT, ApiClient, connect
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import Kind
from torchnet.k8s.client.watch import events, lines

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
Object = dict[str, Any]


@dataclass(frozen=True)
class Collection:
    """The ConfigMaps of one namespace."""

    client: ApiClient
    namespace: str

    def call(self, method: str, name: str = "", **more: Any) -> Object:
        path = CONFIG_MAP.path(self.namespace, name)
        return self.client.call(method, path, CONFIG_MAP.call(method.lower(), self.namespace, name), **more)

    def create(self, name: str, *, query: Object | None = None, **labels: str) -> Object:
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1", "b": "2"}}
        return self.call("POST", body=body, query=query)

    def patch(self, name: str, body: Object) -> Object:
        return self.call("PATCH", name, body=body, content=MERGE_PATCH, query={"fieldManager": "torchnet"})

    def names(self, label: str, *, everywhere: bool = False) -> list[str]:
        place = Collection(self.client, "") if everywhere else self
        items = place.call("GET", query={"labelSelector": label})["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def refusal(self, method: str, name: str = "", **more: Any) -> ApiRefusal:
        with pytest.raises(ApiRefusal) as caught:
            self.call(method, name, **more)
        return caught.value

    def watch(self, version: str, label: str, accept: str = "*/*") -> list[Object]:
        """The events of a watch of 2 s from this resourceVersion."""
        query = {
            "labelSelector": label,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": 2,
        }
        path, call = CONFIG_MAP.path(self.namespace), CONFIG_MAP.call("watch", self.namespace)
        response = self.client.stream(path, call, query=query, silence=20.0, accept=accept)
        found = list(events(lines(response)))
        response.close()
        assert None not in found
        return [event for event in found if event is not None]


def check_create(maps: Collection, name: str) -> None:
    created = maps.create(name, run=name)
    assert created["data"] == {"a": "1", "b": "2"}
    assert created["metadata"]["labels"] == {"run": name}
    assert all(created["metadata"][field] for field in ("uid", "resourceVersion", "creationTimestamp"))
    assert maps.call("GET", name) == created


def check_dry_run(maps: Collection, name: str) -> None:
    assert maps.create(name, query={"dryRun": "All"})["metadata"]["name"] == name
    assert maps.refusal("GET", name).status == 404


def check_conflict_on_create(maps: Collection, name: str) -> None:
    maps.create(name)
    with pytest.raises(ApiRefusal) as caught:
        maps.create(name)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    with pytest.raises(ApiRefusal) as caught:
        maps.create(name, query={"dryRun": "All"})
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


def check_missing(maps: Collection, name: str) -> None:
    for method in ("GET", "DELETE"):
        refusal = maps.refusal(method, name)
        assert (refusal.status, refusal.reason) == (404, "NotFound")
        assert name in refusal.message
    patch = maps.refusal("PATCH", name, body={}, content=MERGE_PATCH)
    assert (patch.status, patch.reason) == (404, "NotFound")


def check_list(maps: Collection, name: str) -> None:
    maps.create(f"{name}-a", run=name)
    maps.create(f"{name}-b", run=name, other="x")
    maps.create(f"{name}-c", run="another")
    assert maps.names(f"run={name}") == [f"{name}-a", f"{name}-b"]
    assert maps.names(f"run={name},other=x") == [f"{name}-b"]
    assert {f"{name}-a", f"{name}-b", f"{name}-c"} <= set(maps.names("run")), "the label's existence"
    answer = maps.call("GET", query={"labelSelector": f"run={name}-none"})
    assert answer["items"] == []
    assert int(answer["metadata"]["resourceVersion"]) > 0
    (item, _) = maps.call("GET", query={"labelSelector": f"run={name}"})["items"]
    assert "kind" not in item, "only the list of a custom resource has the kind in its items"


def check_selectors(maps: Collection, name: str) -> None:
    maps.create(f"{name}-a", run=name)
    maps.create(f"{name}-b", run=name, other="x")
    assert maps.names(f"run={name},!other") == [f"{name}-a"]
    assert maps.names(f"run={name},other!=x") == [f"{name}-a"], "nor does the label have to exist"
    assert maps.names(f"run={name},run!={name}") == []


def check_pages(maps: Collection, name: str) -> None:
    for letter in "abc":
        maps.create(f"{name}-{letter}", run=name)
    query: Object = {"labelSelector": f"run={name}", "limit": 2}
    first = maps.call("GET", query=query)
    assert [one["metadata"]["name"] for one in first["items"]] == [f"{name}-a", f"{name}-b"], "by name"
    maps.create(f"{name}-d", run=name)
    rest = maps.call("GET", query={**query, "continue": first["metadata"]["continue"]})
    assert [one["metadata"]["name"] for one in rest["items"]] == [f"{name}-c"], "of the first page's time"
    assert not rest["metadata"].get("continue")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    cached = maps.call("GET", query={**query, "resourceVersion": "0"})
    assert not cached["metadata"].get("continue"), "the watch cache has no pages"


def check_metadata(maps: Collection, name: str) -> None:
    maps.create(name, run=name)
    query = {"labelSelector": f"run={name}"}
    (item,) = maps.call("GET", query=query, accept=METADATA)["items"]
    assert item["metadata"]["labels"] == {"run": name}
    version = maps.call("GET", query=query)["metadata"]["resourceVersion"]
    maps.patch(name, {"metadata": {"annotations": {"a": "b"}}})
    found = [
        one
        for one in maps.watch(version, query["labelSelector"], METADATA_OBJECT)
        if one["type"] != "BOOKMARK"
    ]
    assert [one["object"]["metadata"]["annotations"] for one in found] == [{"a": "b"}]


def check_fields(maps: Collection, name: str) -> None:
    maps.create(f"{name}-a", run=name)
    maps.create(f"{name}-b", run=name)
    for sign, found in (("=", "b"), ("!=", "a")):
        query = {"labelSelector": f"run={name}", "fieldSelector": f"metadata.name{sign}{name}-b"}
        names = [one["metadata"]["name"] for one in maps.call("GET", query=query)["items"]]
        assert names == [f"{name}-{found}"]


def check_list_everywhere(maps: Collection, name: str) -> None:
    maps.create(f"{name}-a", run=name)
    assert maps.names(f"run={name}", everywhere=True) == [f"{name}-a"]
    everywhere = Collection(maps.client, "")
    (item,) = everywhere.call("GET", query={"labelSelector": f"run={name}"})["items"]
    assert item["metadata"]["namespace"] == maps.namespace
    version = everywhere.call("GET", query={"labelSelector": f"run={name}"})["metadata"]["resourceVersion"]
    maps.create(f"{name}-b", run=name)
    found = [event for event in everywhere.watch(version, f"run={name}") if event["type"] != "BOOKMARK"]
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in found] == [("ADDED", f"{name}-b")]


def check_merge_patch(maps: Collection, name: str) -> None:
    before = maps.create(name, run=name)["metadata"]
    after = maps.patch(name, {"data": {"a": "3", "b": None, "c": "4"}})
    assert after["data"] == {"a": "3", "c": "4"}
    assert after["metadata"]["labels"] == {"run": name}
    assert after["metadata"]["uid"] == before["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(before["resourceVersion"])
    assert maps.patch(name, {}) == after, "nothing changes, so the resourceVersion does not either"


def check_version_conflict(maps: Collection, name: str) -> None:
    old = maps.create(name)["metadata"]["resourceVersion"]
    new = maps.patch(name, {"data": {"a": "3"}})["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": old}, "data": {"a": "4"}}
    refusal = maps.refusal("PATCH", name, body=body, content=MERGE_PATCH)
    assert (refusal.status, refusal.reason) == (409, "Conflict")
    assert maps.call("GET", name)["data"]["a"] == "3"
    assert maps.patch(name, {"metadata": {"resourceVersion": new}, "data": {"a": "4"}})["data"]["a"] == "4"


def check_delete(maps: Collection, name: str) -> None:
    uid = maps.create(name)["metadata"]["uid"]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
    other = {**options, "preconditions": {"uid": "another"}}
    refusal = maps.refusal("DELETE", name, body=other)
    assert (refusal.status, refusal.reason) == (409, "Conflict")
    maps.call("DELETE", name, body={**options, "preconditions": {"uid": uid}})
    assert maps.refusal("GET", name).status == 404
    assert maps.create(name)["metadata"]["uid"] != uid
    maps.call("DELETE", name, query={"propagationPolicy": "Background"})
    assert maps.refusal("GET", name).status == 404


def check_delete_collection(maps: Collection, name: str) -> None:
    maps.create(f"{name}-a", run=name)
    maps.create(f"{name}-b", run=name)
    maps.create(f"{name}-c", run=f"{name}-other")
    maps.call("DELETE", query={"labelSelector": f"run={name}"})
    assert maps.names(f"run={name}") == []
    assert maps.names(f"run={name}-other") == [f"{name}-c"]
    maps.call("DELETE", query={"labelSelector": f"run={name}"})  # nothing left is not an error


def check_watch(maps: Collection, name: str) -> None:
    label = f"run={name}"
    maps.create(f"{name}-before", run=name)
    version = maps.call("GET", query={"labelSelector": label})["metadata"]["resourceVersion"]
    maps.create(f"{name}-a", run=name)
    maps.create(f"{name}-b", run="another")
    maps.patch(f"{name}-a", {"data": {"a": "3"}})
    maps.patch(f"{name}-before", {"metadata": {"labels": {"run": "another"}}})
    maps.call("DELETE", f"{name}-a")
    found = [event for event in maps.watch(version, label) if event["type"] != "BOOKMARK"]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in found] == [
        ("ADDED", f"{name}-a"),
        ("MODIFIED", f"{name}-a"),
        ("DELETED", f"{name}-before"),  # it no longer matches
        ("DELETED", f"{name}-a"),
    ]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in found]
    assert versions == sorted(set(versions)), "each change has a higher resourceVersion"
    assert all(event["object"]["kind"] == "ConfigMap" for event in found)
    rest = maps.watch(str(versions[1]), label)
    assert [event["type"] for event in rest if event["type"] != "BOOKMARK"] == ["DELETED", "DELETED"]
    for event in rest:
        if event["type"] == "BOOKMARK":
            assert int(event["object"]["metadata"]["resourceVersion"]) >= versions[-1]


CHECKS: tuple[Callable[[Collection, str], None], ...] = (
    check_create,
    check_dry_run,
    check_conflict_on_create,
    check_missing,
    check_list,
    check_selectors,
    check_pages,
    check_metadata,
    check_fields,
    check_list_everywhere,
    check_merge_patch,
    check_version_conflict,
    check_delete,
    check_delete_collection,
    check_watch,
)


def main(namespace: str) -> None:
    maps = Collection(connect(), namespace)
    for check in CHECKS:
        check(maps, f"contract-{secrets.token_hex(3)}")
    print(len(CHECKS))


if __name__ == "__main__":
    main(sys.argv[1])
