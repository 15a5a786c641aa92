"""The strategic merge of pod templates, as ``kubectl patch`` does it (pure).

After k8s.io/apimachinery/pkg/util/strategicpatch: maps are merged, null deletes a key, lists are replaced but for those
with a merge key, whose items are merged by it. ``$patch: delete`` and ``$patch: replace`` in a map or in an item of
such a list, and ``$retainKeys``, mean what they mean there; other directives are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# k8s.io/api/core/v1/types.go of 1.34: the fields of a PodTemplateSpec that have a patchMergeKey. All other lists
# (tolerations, envFrom, readinessGates, …) are replaced.
_CONTAINER = {
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
MERGE_KEYS: dict[tuple[str, ...], str] = {
    ("spec", "volumes"): "name",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("spec", "schedulingGates"): "name",
    ("spec", "resourceClaims"): "name",
}
for _list in ("containers", "initContainers", "ephemeralContainers"):
    MERGE_KEYS["spec", _list] = "name"
    MERGE_KEYS |= {("spec", _list, field): key for field, key in _CONTAINER.items()}


class MergeError(ValueError):
    """What in a patch cannot be merged, with its place."""


def merge(original: Any, patch: Any, path: tuple[str, ...] = ()) -> Any:
    """``original`` with ``patch`` merged over it; neither is changed.

    Raises:
        MergeError: an item without its merge key, a directive that is unknown, or a map where a list was.
    """
    if not isinstance(patch, Mapping):
        return patch
    action, fields, retained = _directives(patch, path)
    if action == "replace":
        return _without_nulls(fields, path)
    if action == "delete":
        return {}
    if original is not None and not isinstance(original, Mapping):
        raise MergeError(f"{_place(path)}: is a map, and what it is merged with is none")
    found = {key: value for key, value in (original or {}).items() if retained is None or key in retained}
    for key, value in fields.items():
        place = (*path, key)
        if value is None:
            found.pop(key, None)
        elif isinstance(value, list):
            found[key] = _merge_lists(found.get(key), value, place)
        elif isinstance(value, Mapping) and value.get("$patch") == "delete":
            _directives(value, place)
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = merge(found.get(key), value, place)
        else:
            found[key] = value
    return found


def _directives(
    patch: Mapping[str, Any], path: tuple[str, ...]
) -> tuple[str, dict[str, Any], list[str] | None]:
    """(what ``$patch`` says, the fields, the keys that ``$retainKeys`` leaves)."""
    action, retained = patch.get("$patch", "merge"), patch.get("$retainKeys")
    unknown = [key for key in patch if key.startswith("$") and key not in ("$patch", "$retainKeys")]
    if unknown:
        raise MergeError(
            f"{_place(path)}: {unknown[0]!a} is no directive that is understood: $patch, $retainKeys"
        )
    if action not in ("merge", "replace", "delete"):
        raise MergeError(f"{_place(path)}: $patch is {action!a}; valid: merge, replace, delete")
    if retained is not None and not (
        isinstance(retained, list) and all(isinstance(one, str) for one in retained)
    ):
        raise MergeError(f"{_place(path)}: $retainKeys is no list of keys")
    return action, {key: value for key, value in patch.items() if not key.startswith("$")}, retained


def _without_nulls(fields: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = merge({}, fields, path)
    return found


def _merge_lists(original: Any, patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    key = MERGE_KEYS.get(path)
    if key is None:
        return patch
    if original is not None and not isinstance(original, list):
        raise MergeError(f"{_place(path)}: is a list, and what it is merged with is none")
    kept = list(original or ())
    added: list[Any] = []
    for number, item in enumerate(patch):
        place = (*path[:-1], f"{path[-1]}[{number}]")
        if not isinstance(item, Mapping):
            raise MergeError(f"{_place(place)}: is no map")
        action, fields, _ = _directives(item, place)
        if action == "replace" and not fields:
            kept = []  # the whole list is what the patch has
            continue
        if key not in fields:
            raise MergeError(f"{_place(place)}: lacks {key}, which its list is merged by")
        if any(one[key] == fields[key] for one in added):
            raise MergeError(f"{_place(place)}: {key} {fields[key]!a} stands twice")
        before = next((one for one in kept if one.get(key) == fields[key]), None)
        if action == "delete":
            kept = [one for one in kept if one.get(key) != fields[key]]
            continue
        added.append(merge(before, item, path))
    changed = [one[key] for one in added]
    return _interleaved([one for one in kept if one.get(key) not in changed], added, kept, key)


def _interleaved(left: list[Any], right: list[Any], order: Sequence[Any], key: str) -> list[Any]:
    """What the patch left alone, put among the patch's items: before those that it stood before (mergeSortedSlice)."""
    place = {one.get(key): number for number, one in enumerate(order)}
    found = []
    left, right = left[::-1], right[::-1]
    while left and right:
        first, second = place.get(left[-1].get(key)), place.get(right[-1].get(key))
        found.append((left if first is not None and second is not None and first < second else right).pop())
    return found + left[::-1] + right[::-1]


def _place(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the template"
