"""How large an object may be: for ``kubectl apply`` as people type it, and at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.errors import UsageError
from torchnet.manifests.emit import Manifest
from torchnet.spec.grammar import ANNOTATIONS_LIMIT

# Without --server-side kubectl keeps the whole object in an annotation; the rest is for its name and what kubectl adds.
APPLY_LIMIT = ANNOTATIONS_LIMIT - 256
# Of a ConfigMap's values together (k8s.io/kubernetes/pkg/apis/core/validation: MaxSecretSize).
MAP_LIMIT = 1 << 20


def check(manifests: Iterable[Manifest]) -> list[str]:
    """A line for each object that takes ``kubectl apply --server-side``.

    Raises UsageError: no API server would take one of them.
    """
    notes = []
    for manifest in manifests:
        body = manifest.body
        size = sum(len(text.encode()) for text in body.get("data", {}).values())
        if body["kind"] == "ConfigMap" and size > MAP_LIMIT:
            raise UsageError(
                f"{_name(body)} would hold {size:,} bytes, and a ConfigMap holds {MAP_LIMIT:,}",
                fix="divide the nodes among several attachments, each with a --name of its own",
            )
        size = len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        if size > APPLY_LIMIT:
            notes.append(
                f"{_name(body)} has {size:,} bytes, and kubectl apply takes {APPLY_LIMIT:,}: "
                "kubectl apply --server-side -f -"
            )
    return notes


def _name(body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    return f"{body['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"
