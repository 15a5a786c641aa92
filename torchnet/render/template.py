"""``--pod-template FILE``: the one door to PyYAML, and what such a file may say.

Read as data alone and within bounds: 1 MiB, 20,000 values, 60 levels; no tags, and no aliases, since a few of them make
a document of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torchnet import names
from torchnet.errors import UsageError
from torchnet.network.text import printable
from torchnet.render.merge import MergeError, merge

SIZE_LIMIT, NODES_LIMIT, DEPTH_LIMIT = 1 << 20, 20_000, 60
FORM = "metadata with labels and annotations, and a pod's spec"


class _Wrong(Exception):
    """What is wrong with the file, after its name."""


def load(path: str | Path) -> dict[str, Any]:
    """The patch in the file at ``path``. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
        return parse(data)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
    except ValueError as error:
        what = str(error)
    except _Wrong as error:
        what = str(error)
    raise UsageError(f"--pod-template {printable(str(path), 200)}: {what}", fix=f"a YAML file with {FORM}")


def parse(data: bytes) -> dict[str, Any]:
    """The patch in ``data``. Raises `_Wrong`."""
    if len(data) > SIZE_LIMIT:
        raise _Wrong(f"has more than {SIZE_LIMIT} bytes, and no more are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Wrong(f"is not UTF-8 (byte {error.start})") from None
    document = _plain_yaml(text)
    if not isinstance(document, dict):
        raise _Wrong("is no map")
    wrong = [
        f"there is no field {printable(str(key), 80)} in it"
        for key in document
        if key not in ("metadata", "spec")
    ]
    for key in ("metadata", "spec"):
        if not isinstance(document.get(key, {}), dict):
            wrong.append(f"{key} is no map")
        elif key == "metadata":
            wrong += [
                f"metadata.{printable(str(one), 80)} is not the template's to say"
                for one in document.get(key, {})
                if one not in ("labels", "annotations")
            ]
    if wrong:
        raise _Wrong("; ".join(wrong))
    try:
        merge({}, document)
    except MergeError as error:
        raise _Wrong(str(error)) from None
    return document


def _plain_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
        """Plain data only: dates stay text, as they do for kubectl."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader)):
            if isinstance(event, yaml.AliasEvent):
                raise _Wrong(f"line {event.start_mark.line + 1}: aliases (*name) are not read; write it out")
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
            if depth > DEPTH_LIMIT or number > NODES_LIMIT:
                raise _Wrong(
                    "is nested too deeply" if depth > DEPTH_LIMIT else f"has more than {NODES_LIMIT} values"
                )
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            _check_keys(node, yaml)
            document = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise _Wrong(f"{where}{printable(str(getattr(error, 'problem', None) or error), 200)}") from None
    except (RecursionError, ValueError, OverflowError):
        raise _Wrong("holds a value that cannot be read") from None
    _check_plain(document, "")
    return document


def _check_keys(node: Any, yaml: Any) -> None:
    """No key twice: PyYAML would take the last one in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise _Wrong(f"line {key.start_mark.line + 1}: a key is no plain text")
            if key.value in seen:
                raise _Wrong(f"line {key.start_mark.line + 1}: {printable(key.value, 80)} stands twice")
            seen.add(key.value)
            _check_keys(value, yaml)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, yaml)


def _check_plain(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise _Wrong(
                    f"{place or 'the file'}: the key {printable(repr(key), 80)} is no text; put it into quotes"
                )
            _check_plain(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{place}[{number}]")
    elif isinstance(value, float) or not isinstance(value, (str, int, bool, type(None))):
        raise _Wrong(
            f"{printable(place, 200)}: {printable(repr(value), 80)} is neither text nor a whole number"
        )


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
