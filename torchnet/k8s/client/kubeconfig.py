"""The namespace of a kubeconfig's context: all that a dry run needs of it, so that it sends no request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torchnet.config.parsing import parse_label
from torchnet.constants import API_DIR
from torchnet.errors import UsageError
from torchnet.text import printable
from torchnet.yaml_io import YamlError, read_file

DEFAULT = "default"


def namespace(kubeconfig: str | None, context: str | None, environ: Mapping[str, str]) -> str:
    """Return the namespace that kubectl would use.

    The files of KUBECONFIG are merged, and the first one that sets a value wins. If there is no file, the namespace is
    the pod's own.

    Raises:
        UsageError: A file does not exist or cannot be read, no file has the context, or its namespace is invalid.
    """
    paths = kubeconfig or environ.get("KUBECONFIG") or "~/.kube/config"
    files = [
        path for path in map(os.path.expanduser, paths.split(os.pathsep)) if path and os.path.exists(path)
    ]
    if kubeconfig and not files:
        raise UsageError(f"--kubeconfig {printable(kubeconfig, 200)}: no such file", fix="-n NAMESPACE")
    documents = [_read(path) for path in files]
    chosen = context or next(
        (one["current-context"] for one in documents if one.get("current-context")), None
    )
    for document in documents:
        for entry in document["contexts"]:
            if isinstance(entry, dict) and entry.get("name") == chosen:
                found = entry.get("context") if isinstance(entry.get("context"), dict) else {}
                return _checked(str((found or {}).get("namespace") or DEFAULT))
    if context:
        raise UsageError(
            f"--context {printable(context, 200)}: not found in the kubeconfig",
            fix="kubectl config get-contexts",
        )
    return DEFAULT if files else _own()


def _read(path: str) -> dict[str, Any]:
    try:
        document = read_file(path)
    except YamlError as error:
        raise UsageError(f"the kubeconfig {printable(path, 200)}: {error}", fix="-n NAMESPACE") from None
    document = document if isinstance(document, dict) else {}
    document["contexts"] = document.get("contexts") or []
    if not isinstance(document["contexts"], list):
        raise UsageError(
            f"the kubeconfig {printable(path, 200)}: contexts must be a list", fix="-n NAMESPACE"
        )
    return document


def _checked(name: str) -> str:
    try:
        return parse_label(name)
    except ValueError as error:
        raise UsageError(
            f"the context's namespace {printable(name, 80)!a} {error}", fix="-n NAMESPACE"
        ) from None


def _own() -> str:
    try:
        with open(f"{API_DIR}/namespace", encoding="utf-8") as file:
            return _checked(file.read(256).strip())
    except (OSError, UnicodeDecodeError):
        return DEFAULT
