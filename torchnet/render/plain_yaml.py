"""The one door to PyYAML: files that people wrote, read as plain data and within bounds.

1 MiB, 20,000 values, 60 levels; no tags, and no aliases, since a few of them make a document of any size.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from torchnet.network.text import printable

SIZE_LIMIT, NODES_LIMIT, DEPTH_LIMIT = 1 << 20, 20_000, 60


class YamlError(Exception):
    """What is wrong with a file, after its name."""


def read_file(path: str | os.PathLike[str]) -> Any:
    """The document in the file at ``path``. Raises `YamlError`."""
    try:
        with open(path, "rb") as file:
            return read(file.read(SIZE_LIMIT + 1))
    except OSError as error:
        raise YamlError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise YamlError("has a NUL character in its name") from None


def read(data: bytes) -> Any:
    """The one document in ``data``: dicts with text as keys, lists, text, whole numbers, booleans, None.

    Raises:
        YamlError: it is no such document.
    """
    if len(data) > SIZE_LIMIT:
        raise YamlError(f"has more than {SIZE_LIMIT} bytes, and no more are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"is not UTF-8 (byte {error.start})") from None
    return _document(text)


def _document(text: str) -> Any:
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
                raise YamlError(
                    f"line {event.start_mark.line + 1}: aliases (*name) are not read; write it out"
                )
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
            if depth > DEPTH_LIMIT or number > NODES_LIMIT:
                raise YamlError(
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
        raise YamlError(f"{where}{printable(str(getattr(error, 'problem', None) or error), 200)}") from None
    except (RecursionError, ValueError, OverflowError):
        raise YamlError("holds a value that cannot be read") from None
    _check_plain(document, "")
    return document


def _check_keys(node: Any, yaml: Any) -> None:
    """No key twice: PyYAML would take the last one in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise YamlError(f"line {key.start_mark.line + 1}: a key is no plain text")
            if key.value in seen:
                raise YamlError(f"line {key.start_mark.line + 1}: {printable(key.value, 80)} stands twice")
            seen.add(key.value)
            _check_keys(value, yaml)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, yaml)


def _check_plain(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise YamlError(
                    f"{place or 'the file'}: the key {printable(repr(key), 80)} is no text; put it into quotes"
                )
            _check_plain(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{place}[{number}]")
    elif isinstance(value, float) or not isinstance(value, (str, int, bool, type(None))):
        raise YamlError(
            f"{printable(place, 200)}: {printable(repr(value), 80)} is neither text nor a whole number"
        )
