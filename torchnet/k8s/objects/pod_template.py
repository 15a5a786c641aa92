"""``--pod-template FILE``: the content that it may have, its strategic merge, and the check of the result.

The merge follows k8s.io/apimachinery/pkg/util/strategicpatch: maps are merged, null deletes a key, and lists are
replaced, except those with a merge key, whose items are merged by it. ``$patch: delete`` and ``$patch: replace`` in a
map or in an item of such a list, and ``$retainKeys``, have the same meaning as there; other directives are rejected.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torchnet import constants
from torchnet.config.k8s_syntax import too_large
from torchnet.errors import UsageError
from torchnet.text import printable
from torchnet.yaml_io import YamlError, read_file

# The lists of a PodTemplateSpec that have a patchMergeKey (k8s.io/api/core/v1/types.go of 1.34). All other lists
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
    """A part of a patch cannot be merged; the text begins with its path."""


def merge(original: Any, patch: Any, path: tuple[str, ...] = ()) -> Any:
    """Return ``original`` with ``patch`` merged over it; neither is changed.

    Raises:
        MergeError: An item lacks its merge key or repeats one, a directive is unknown or invalid, or the types differ.
    """
    if not isinstance(patch, Mapping):
        return patch
    action, fields, retained = _directives(patch, path)
    if action == "replace":
        return _without_nulls(fields, path)
    if action == "delete":
        return {}
    if original is not None and not isinstance(original, Mapping):
        raise MergeError(f"{_place(path)}: must not be a map")
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
        elif isinstance(found.get(key), list) or place in MERGE_KEYS:
            raise MergeError(f"{_place(place)}: must be a list")
        elif isinstance(found.get(key), Mapping):
            raise MergeError(f"{_place(place)}: must be a map")
        else:
            found[key] = value
    return found


def _directives(
    patch: Mapping[str, Any], path: tuple[str, ...]
) -> tuple[str, dict[str, Any], list[str] | None]:
    """Return (the value of ``$patch``, the fields, the keys that ``$retainKeys`` keeps)."""
    action, retained = patch.get("$patch", "merge"), patch.get("$retainKeys")
    unknown = [key for key in patch if key.startswith("$") and key not in ("$patch", "$retainKeys")]
    if unknown:
        raise MergeError(f"{_place(path)}: {unknown[0]!a} is not a directive; valid: $patch, $retainKeys")
    if action not in ("merge", "replace", "delete"):
        raise MergeError(f"{_place(path)}: $patch is {action!a}; valid: merge, replace, delete")
    if retained is not None and not (
        isinstance(retained, list) and all(isinstance(one, str) for one in retained)
    ):
        raise MergeError(f"{_place(path)}: $retainKeys must be a list of keys")
    return action, {key: value for key, value in patch.items() if not key.startswith("$")}, retained


def _without_nulls(fields: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = merge({}, fields, path)
    return found


def _merge_lists(original: Any, patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    key = MERGE_KEYS.get(path)
    if key is None:
        return patch
    if original is not None and not isinstance(original, list):
        raise MergeError(f"{_place(path)}: must not be a list")
    kept = list(original or ())
    added: list[Any] = []
    for number, item in enumerate(patch):
        place = (*path[:-1], f"{path[-1]}[{number}]")
        if not isinstance(item, Mapping):
            raise MergeError(f"{_place(place)}: must be a map")
        action, fields, _ = _directives(item, place)
        if action == "replace" and not fields:
            kept = []  # the patch replaces the whole list
            continue
        if key not in fields:
            raise MergeError(f"{_place(place)}: has no {key}, which identifies the items of this list")
        if any(one[key] == fields[key] for one in added):
            raise MergeError(f"{_place(place)}: duplicate {key} {fields[key]!a}")
        before = next((one for one in kept if one.get(key) == fields[key]), None)
        if action == "delete":
            kept = [one for one in kept if one.get(key) != fields[key]]
            continue
        added.append(merge(before, item, path))
    changed = [one[key] for one in added]
    return _interleaved([one for one in kept if one.get(key) not in changed], added, kept, key)


def _interleaved(left: list[Any], right: list[Any], order: Sequence[Any], key: str) -> list[Any]:
    """Merge the items that the patch did not change (``left``) with those that it did (``right``).

    An unchanged item stays before the changed ones that it preceded in ``order``.

    Source:
        mergeSortedSlice in k8s.io/apimachinery/pkg/util/strategicpatch
    """
    place = {one.get(key): number for number, one in enumerate(order)}
    found = []
    left, right = left[::-1], right[::-1]
    while left and right:
        first, second = place.get(left[-1].get(key)), place.get(right[-1].get(key))
        found.append((left if first is not None and second is not None and first < second else right).pop())
    return found + left[::-1] + right[::-1]


def _place(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the template"


DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_OWN = (constants.NETWORKS_ANNOTATION, DEFAULT_CONTAINER)
FORM = "metadata with labels and annotations, and a pod's spec"


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the patch in the file at ``path``.

    Raises:
        UsageError: The file cannot be read, or is not a patch of a PodTemplateSpec.
    """
    try:
        return parse(read_file(path))
    except YamlError as error:
        raise UsageError(
            f"--pod-template {printable(str(path), 200)}: {error}", fix=f"a YAML file with {FORM}"
        ) from None


def parse(document: Any) -> dict[str, Any]:
    """Check that ``document`` is a patch of a PodTemplateSpec, and return it.

    Raises:
        YamlError: It is not. The text lists all invalid fields, or else the first part that cannot be merged.
    """
    if not isinstance(document, dict):
        raise YamlError("must be a map")
    wrong = [f"unknown field {printable(key, 80)}" for key in document if key not in ("metadata", "spec")]
    for key in ("metadata", "spec"):
        if not isinstance(document.get(key, {}), dict):
            wrong.append(f"{key} must be a map")
        elif key == "metadata":
            wrong += [
                f"metadata.{printable(one, 80)} cannot be set by a template"
                for one in document.get(key, {})
                if one not in ("labels", "annotations")
            ]
    if wrong:
        raise YamlError("; ".join(wrong))
    try:
        merge({}, document)
    except MergeError as error:
        raise YamlError(str(error)) from None
    return document


def apply(before: Mapping[str, Any], patch: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the template ``before`` with ``patch`` merged over it.

    Args:
        name: The patch's file, for the message.

    Raises:
        UsageError: They cannot be merged, or the merged pod is no longer a worker of this run. The message lists
            everything that the patch must not change.
    """
    try:
        after: dict[str, Any] = merge(before, patch)
    except MergeError as error:
        text = f"--pod-template {printable(name, 200)}: {printable(str(error), 300)}"
        raise UsageError(text, fix=f"a YAML file with {FORM}") from None
    wrong = []
    labels = after.get("metadata", {}).get("labels") or {}
    annotations = after.get("metadata", {}).get("annotations") or {}
    for key, value in before["metadata"]["labels"].items():
        if labels.get(key) != value:
            wrong.append(f"metadata.labels: {key} must stay {value}")
    if (
        annotations.get(constants.NETWORKS_ANNOTATION)
        != before["metadata"]["annotations"][constants.NETWORKS_ANNOTATION]
    ):
        wrong.append(f"metadata.annotations: {constants.NETWORKS_ANNOTATION} is set by --network")
    if problem := too_large({key: text for key, text in annotations.items() if key not in _OWN}):
        wrong.append(f"metadata.annotations: with those of --annotation it {problem}")
    spec = after.get("spec", {})
    if spec.get("restartPolicy") != "Never":
        wrong.append("spec.restartPolicy: must stay Never")
    for group, container in (("initContainers", constants.PREPARE), ("containers", constants.WORKER)):
        own = next((one for one in spec.get(group) or () if one.get("name") == container), None)
        kept = next(one for one in before["spec"][group] if one["name"] == container)
        if own is None:
            wrong.append(f"spec.{group}: {container} is missing")
        elif own.get("command") != kept["command"] or own.get("args"):
            wrong.append(f"spec.{group}: the command of {container} must not change")
        elif own.get("startupProbe") != kept.get("startupProbe"):
            wrong.append(f"spec.{group}: the startupProbe of {container} must not change")
    if wrong:
        lines = [
            f"--pod-template {printable(name, 200)}: the template must not change these fields:",
            *map(printable, wrong),
        ]
        raise UsageError("\n  ".join(lines), fix="remove these fields from the template")
    return after
