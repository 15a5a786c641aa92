"""The strategic merge: the rules of k8s.io/apimachinery/pkg/util/strategicpatch, and cases of its documentation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.k8s.objects.pod_template import MergeError, merge


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


A, B, C = ({"name": name, "image": f"{name}:1"} for name in "abc")

CASES = [
    # kubernetes.io, "Update API Objects in Place Using kubectl patch": the new container comes first.
    (spec(containers=[A]), spec(containers=[B]), spec(containers=[B, A])),
    (spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]), spec(tolerations=[{"key": "b"}])),
    # maps, scalars, null
    (spec(x={"a": 1, "b": 2}), spec(x={"b": None, "c": 3}), spec(x={"a": 1, "c": 3})),
    (spec(x=1), spec(x=None, y=None), spec()),
    ({}, spec(x={"a": None, "b": 1}), spec(x={"b": 1})),
    (spec(x=[1, 2]), spec(x=[3]), spec(x=[3])),
    (spec(x=None), spec(x={"a": 1}), spec(x={"a": 1})),
    # lists with a merge key, in place where the patch has only what is there
    (
        spec(containers=[A, B, C]),
        spec(containers=[{"name": "b", "tty": True}]),
        spec(containers=[A, B | {"tty": True}, C]),
    ),
    (spec(containers=[A, B]), spec(containers=[{"name": "b", "image": None}]), spec(containers=[A, {"name": "b"}])),
    (spec(containers=[A, B, C]), spec(containers=[{"name": "b", "$patch": "delete"}]), spec(containers=[A, C])),
    (spec(containers=[A]), spec(containers=[{"name": "x", "$patch": "delete"}]), spec(containers=[A])),
    (spec(containers=[A, B]), spec(containers=[{"$patch": "replace"}, C]), spec(containers=[C])),
    (
        spec(containers=[A, B]),
        spec(containers=[{"name": "a", "$patch": "replace", "tty": True}]),
        spec(containers=[{"name": "a", "tty": True}, B]),
    ),
    # the patch's order wins among its own; what it leaves alone stays before what it stood before
    (spec(containers=[A, B, C]), spec(containers=[{"name": "c"}, {"name": "a"}]), spec(containers=[B, C, A])),
    # nested lists by their own keys
    (
        spec(containers=[A | {"env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]),
        spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "3"}, {"name": "X", "$patch": "delete"}]}]),
        spec(containers=[A | {"env": [{"name": "Y", "value": "3"}]}]),
    ),
    (
        spec(containers=[A | {"volumeMounts": [{"mountPath": "/a", "name": "x"}]}]),
        spec(containers=[{"name": "a", "volumeMounts": [{"mountPath": "/a", "readOnly": True}]}]),
        spec(containers=[A | {"volumeMounts": [{"mountPath": "/a", "name": "x", "readOnly": True}]}]),
    ),
    (
        spec(containers=[A | {"envFrom": [{"secretRef": {"name": "x"}}]}]),
        spec(containers=[{"name": "a", "envFrom": [{"secretRef": {"name": "y"}}]}]),
        spec(containers=[A | {"envFrom": [{"secretRef": {"name": "y"}}]}]),
    ),
    (
        spec(initContainers=[A | {"ports": [{"containerPort": 1}]}]),
        spec(initContainers=[{"name": "a", "ports": [{"containerPort": 1, "name": "p"}]}]),
        spec(initContainers=[A | {"ports": [{"containerPort": 1, "name": "p"}]}]),
    ),
    (
        spec(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a"]}]),
        spec(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["b"]}]),
        spec(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["b"]}]),
    ),
    (
        spec(topologySpreadConstraints=[{"topologyKey": "h", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}]),
        spec(topologySpreadConstraints=[{"topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule"}]),
        spec(topologySpreadConstraints=[{"topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}]),
    ),
    (
        spec(imagePullSecrets=[{"name": "a"}]),
        spec(imagePullSecrets=[{"name": "b"}, {"name": "a"}]),
        spec(imagePullSecrets=[{"name": "b"}, {"name": "a"}]),
    ),
    # another kind of volume under the same name takes $retainKeys, as in kubectl apply's own patches
    (
        spec(volumes=[{"name": "w", "emptyDir": {}}]),
        spec(volumes=[{"name": "w", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]),
        spec(volumes=[{"name": "w", "hostPath": {"path": "/x"}}]),
    ),
    # a whole map
    (spec(x={"a": 1}), spec(x={"$patch": "replace", "b": 2}), spec(x={"b": 2})),
    (spec(x={"a": 1}, y=1), spec(x={"$patch": "delete"}), spec(y=1)),
    # outside of the places that have a key, lists are replaced, whatever their name is
    ({"metadata": {"containers": [A]}}, {"metadata": {"containers": [B]}}, {"metadata": {"containers": [B]}}),
]  # fmt: skip


@pytest.mark.parametrize(("original", "patch", "expected"), CASES, ids=lambda value: str(value)[:60])
def test_known_cases(original: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy((original, patch))
    assert merge(original, patch) == expected
    assert (original, patch) == before


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        (spec(containers=[{"image": "x"}]), "spec.containers[0]"),
        (spec(containers=["x"]), "spec.containers[0]"),
        (spec(containers=[A, A]), "duplicate name"),
        (spec(containers=[{"name": "a", "$patch": "remove"}]), "valid: merge, replace, delete"),
        (spec(**{"$setElementOrder/containers": []}), "not a directive"),
        (spec(volumes=[{"name": "a", "$retainKeys": "name"}]), "$retainKeys"),
        (spec(containers={"name": "a"}), "spec.containers"),
        (spec(x=1, volumes={"a": 1}), "spec.volumes"),
    ],
    ids=str,
)
def test_patches_that_cannot_be_merged_name_the_place(patch: Any, place: str) -> None:
    with pytest.raises(MergeError) as caught:
        merge(spec(containers=[B], volumes=[{"name": "v"}]), patch)
    assert place in str(caught.value)


SCALARS = st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["", "a", "b"])
MAPS = st.dictionaries(
    st.sampled_from("xyz"), SCALARS | st.dictionaries(st.sampled_from("uv"), SCALARS), max_size=3
)


def named(actions: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    item = st.builds(
        lambda name, fields, action: {"name": name, **fields, **action},
        st.sampled_from("abcd"),
        MAPS,
        st.sampled_from([{}, {}, {"$patch": "delete"}, {"$patch": "replace"}]) if actions else st.just({}),
    )
    return st.lists(item, max_size=4, unique_by=lambda one: one["name"])


def pods(actions: bool) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.dictionaries(
        st.sampled_from(["containers", "initContainers", "volumes"]), named(actions), max_size=3
    )
    other = st.dictionaries(
        st.sampled_from(["x", "tolerations"]), MAPS | st.lists(MAPS, max_size=2) | SCALARS, max_size=2
    )
    return st.builds(lambda one, two: {"spec": {**one, **two}}, lists, other)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


WHOLE = pods(actions=False).map(without_nulls)


@settings(deadline=None)
@given(WHOLE)
def test_an_empty_patch_and_the_object_itself_change_nothing(original: dict[str, Any]) -> None:
    assert merge(original, {}) == original
    assert merge(original, original) == original
    assert merge({}, original) == original


@settings(deadline=None)
@given(WHOLE, pods(actions=True))
def test_a_patch_twice_is_the_patch_once(original: dict[str, Any], patch: dict[str, Any]) -> None:
    try:
        once = merge(original, patch)
    except MergeError:
        return  # a map where the original has a list
    assert merge(once, patch) == once


@settings(deadline=None)
@given(WHOLE, pods(actions=True))
def test_nothing_is_lost_that_the_patch_does_not_name(
    original: dict[str, Any], patch: dict[str, Any]
) -> None:
    try:
        merged = merge(original, patch)
    except MergeError:
        return
    for key, items in original["spec"].items():
        if key not in patch["spec"]:
            assert merged["spec"][key] == items
        elif key in ("containers", "initContainers", "volumes"):
            told = {one["name"] for one in patch["spec"][key]}
            kept = [one for one in items if one["name"] not in told]
            assert [one for one in merged["spec"][key] if one["name"] not in told] == kept
