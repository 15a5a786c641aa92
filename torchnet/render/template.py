"""``--pod-template FILE``: what such a file may say, and whether a merged pod is still a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torchnet import names
from torchnet.errors import UsageError
from torchnet.network.text import printable
from torchnet.render.merge import MergeError, merge
from torchnet.render.plain_yaml import YamlError, read_file
from torchnet.spec.grammar import too_large

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_OWN = (names.NETWORKS_ANNOTATION, DEFAULT_CONTAINER)
FORM = "metadata with labels and annotations, and a pod's spec"


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The patch in the file at ``path``. Raises UsageError."""
    try:
        return parse(read_file(path))
    except YamlError as error:
        raise UsageError(
            f"--pod-template {printable(str(path), 200)}: {error}", fix=f"a YAML file with {FORM}"
        ) from None


def parse(document: Any) -> dict[str, Any]:
    """``document`` as a patch of a PodTemplateSpec. Raises YamlError with all that is wrong."""
    if not isinstance(document, dict):
        raise YamlError("is no map")
    wrong = [
        f"there is no field {printable(key, 80)} in it" for key in document if key not in ("metadata", "spec")
    ]
    for key in ("metadata", "spec"):
        if not isinstance(document.get(key, {}), dict):
            wrong.append(f"{key} is no map")
        elif key == "metadata":
            wrong += [
                f"metadata.{printable(one, 80)} is not the template's to say"
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


def check_merged(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> None:
    """Whether the merged pod is still a worker of this run. Raises UsageError with everything that is not."""
    wrong = []
    labels = after.get("metadata", {}).get("labels") or {}
    annotations = after.get("metadata", {}).get("annotations") or {}
    for key, value in before["metadata"]["labels"].items():
        if labels.get(key) != value:
            wrong.append(f"metadata.labels: {key} has to stay {value}")
    if (
        annotations.get(names.NETWORKS_ANNOTATION)
        != before["metadata"]["annotations"][names.NETWORKS_ANNOTATION]
    ):
        wrong.append(f"metadata.annotations: {names.NETWORKS_ANNOTATION} is what --network says")
    if said := too_large({key: text for key, text in annotations.items() if key not in _OWN}):
        wrong.append(f"metadata.annotations: with those of --annotation it {said}")
    spec = after.get("spec", {})
    if spec.get("restartPolicy") != "Never":
        wrong.append("spec.restartPolicy: has to stay Never")
    for group, container in (("initContainers", names.PREPARE), ("containers", names.WORKER)):
        own = next((one for one in spec.get(group) or () if one.get("name") == container), None)
        kept = next(one for one in before["spec"][group] if one["name"] == container)
        if own is None:
            wrong.append(f"spec.{group}: {container} is gone")
        elif own.get("command") != kept["command"] or own.get("args"):
            wrong.append(f"spec.{group}: the command of {container} is torchnet's")
    if wrong:
        lines = [
            f"--pod-template {printable(name, 200)}: it changes what makes a pod a worker:",
            *map(printable, wrong),
        ]
        raise UsageError("\n  ".join(lines), fix="leave these out of the template")
