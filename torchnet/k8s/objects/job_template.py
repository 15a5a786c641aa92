"""``--job-template FILE``: fields of the Job or JobSet that torchnet does not set itself.

torchnet's own fields lie over the template's. A field that torchnet sets, or must not have, is refused rather than
ignored: the pods' fields belong to ``--pod-template``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torchnet import constants
from torchnet.errors import UsageError
from torchnet.text import printable
from torchnet.yaml_io import YamlError, read_file

FORM = "metadata with labels and annotations, and a Job's or JobSet's spec"
# Fields that torchnet leaves out on purpose. The first three end all pods at the first failures, and with them their
# logs and receipts; the others change which pods the Job counts as its own.
_ABSENT = {
    "Job": ("backoffLimit", "maxFailedIndexes", "successPolicy", "selector", "manualSelector"),
    "JobSet": (),
}


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the template in the file at ``path``.

    Raises:
        UsageError: The file cannot be read, or is not a template of a Job or JobSet.
    """
    try:
        return parse(read_file(path))
    except YamlError as error:
        text = f"--job-template {printable(str(path), 200)}: {error}"
        raise UsageError(text, fix=f"a YAML file with {FORM}") from None


def parse(document: Any) -> dict[str, Any]:
    """Check that ``document`` is a template of a Job or JobSet, and return it.

    Raises:
        YamlError: It is not. The text lists all invalid fields.
    """
    if not isinstance(document, dict):
        raise YamlError("must be a map")
    wrong = []
    for key, value in document.items():
        if key in ("apiVersion", "kind"):
            if not isinstance(value, str):
                wrong.append(f"{key} must be text")
        elif key not in ("metadata", "spec"):
            wrong.append(f"unknown field {printable(key, 80)}")
        elif not isinstance(value, dict):
            wrong.append(f"{key} must be a map")
    metadata = document.get("metadata")
    for key, value in metadata.items() if isinstance(metadata, dict) else ():
        if key not in ("labels", "annotations"):
            wrong.append(f"metadata.{printable(key, 80)} cannot be set by a template")
        elif not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            wrong.append(f"metadata.{key} must be a map of texts")
    if wrong:
        raise YamlError("; ".join(wrong))
    return document


def apply(own: Mapping[str, Any], template: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the workload ``own`` with the fields of ``template`` that it does not have.

    Args:
        own: The Job or JobSet that torchnet renders.
        name: The template's file, for the message.

    Raises:
        UsageError: The template is for another kind, or has fields that torchnet needs. The message lists them all.
    """
    wrong = [
        f"{key}: must be {own[key]}, the workload of --kind"
        for key in ("apiVersion", "kind")
        if template.get(key, own[key]) != own[key]
    ]
    found = {**own, "metadata": dict(own["metadata"])}
    for key, pairs in (template.get("metadata") or {}).items():
        before = own["metadata"].get(key) or {}
        wrong += [
            f"metadata.{key}: torchnet sets {printable(one, 100)} itself"
            for one, text in pairs.items()
            if before.get(one, text) != text or (one not in before and one.startswith(_PREFIXES))
        ]
        found["metadata"][key] = {**pairs, **before}
    spec = template.get("spec") or {}
    for key, value in spec.items():
        if key == "template":
            wrong.append("spec.template: --pod-template changes the pods")
        elif key in _ABSENT[own["kind"]] or own["spec"].get(key, value) != value:
            wrong.append(f"spec.{printable(key, 80)}: {_reason(key)}")
    if wrong:
        lines = [f"--job-template {printable(name, 200)}: the template must not set these fields:", *wrong]
        raise UsageError("\n  ".join(lines), fix="remove these fields from the template")
    return found | {"spec": {**spec, **own["spec"]}}


_PREFIXES = (constants.LABEL_PREFIX, constants.OLD_LABEL_PREFIX)
_FLAGS = {"ttlSecondsAfterFinished": "--ttl", "completions": "--nnodes", "parallelism": "--nnodes"}


def _reason(key: str) -> str:
    return f"{_FLAGS[key]} sets it" if key in _FLAGS else "torchnet depends on its own value"
