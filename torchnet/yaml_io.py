"""Read users' YAML files within limits, and write objects as YAML for ``kubectl apply``.

Reading (PyYAML) is limited to 1 MiB, 20,000 values and 60 levels. Tags and aliases are refused: a few aliases can
expand to a document of any size.

The output is reproducible and readable. Text of several lines becomes a literal block, so that an embedded script or
network configuration stays legible. Other text is unquoted only where neither YAML 1.1 (PyYAML, kubectl) nor 1.2 could
read it as another type. Rejected: writing with PyYAML. Its dumpers write no comments, and take 15 times as long for
10,000 pods because they serialize again what the pods of one template share.
"""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, ClassVar

from torchnet.text import printable

SIZE_LIMIT, NODES_LIMIT, DEPTH_LIMIT = 1 << 20, 20_000, 60


class YamlError(Exception):
    """Why a YAML file is invalid. The text completes a sentence that begins with the file's name."""


def read_file(path: str | os.PathLike[str]) -> Any:
    """Read the document in the file at ``path``.

    Raises:
        YamlError: The file cannot be read or is invalid.
    """
    try:
        with open(path, "rb") as file:
            return read(file.read(SIZE_LIMIT + 1))
    except OSError as error:
        raise YamlError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise YamlError("has a NUL character in its name") from None


def read(data: bytes) -> Any:
    """Parse ``data`` as one document of dicts with text keys, lists, text, integers, booleans and None.

    Raises:
        YamlError: ``data`` is anything else.
    """
    return _only(_documents(_decoded(data)))


def read_all(data: bytes) -> list[Any]:
    """Parse ``data`` as any number of documents; empty ones are left out.

    They may contain 200,000 values in all, and other numbers than integers.

    Raises:
        YamlError: ``data`` is anything else.
    """
    return [one for one in _documents(_decoded(data), several=True) if one is not None]


def _decoded(data: bytes) -> str:
    if len(data) > SIZE_LIMIT:
        raise YamlError(f"has more than {SIZE_LIMIT} bytes, the limit")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"is not UTF-8 (byte {error.start})") from None


def _only(documents: list[Any]) -> Any:
    return documents[0] if documents else None


def _documents(text: str, *, several: bool = False) -> list[Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]
        """Loads plain data only; dates stay text, as they do in kubectl."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    limit = NODES_LIMIT * (10 if several else 1)
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader)):
            if isinstance(event, yaml.AliasEvent):
                raise YamlError(
                    f"line {event.start_mark.line + 1}: aliases (*name) are not supported; write the value out"
                )
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
            if depth > DEPTH_LIMIT or number > limit:
                raise YamlError(
                    "is nested too deeply" if depth > DEPTH_LIMIT else f"has more than {limit} values"
                )
        loader = Loader(text)
        documents = []
        try:
            if not several:
                nodes = [loader.get_single_node()]
            else:
                nodes = []
                while loader.check_node():
                    nodes.append(loader.get_node())
            for node in nodes:
                _check_keys(node, yaml)
                documents.append(loader.construct_document(node) if node is not None else None)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise YamlError(f"{where}{printable(str(getattr(error, 'problem', None) or error), 200)}") from None
    except (RecursionError, ValueError, OverflowError):
        raise YamlError("contains an unreadable value") from None
    if not several:
        _check_plain(documents[0], "")
    return documents


def _check_keys(node: Any, yaml: Any) -> None:
    """Refuse duplicate keys, of which PyYAML silently takes the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise YamlError(f"line {key.start_mark.line + 1}: a key is not plain text")
            if key.value in seen:
                raise YamlError(f"line {key.start_mark.line + 1}: duplicate key {printable(key.value, 80)}")
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
                    f"{place or 'the file'}: the key {printable(repr(key), 80)} is not text; quote it"
                )
            _check_plain(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{place}[{number}]")
    elif isinstance(value, float) or not isinstance(value, (str, int, bool, type(None))):
        raise YamlError(
            f"{printable(place, 200)}: {printable(repr(value), 80)} is neither text nor a whole number"
        )


WIDTH = 100  # of comments

# No digit, sign, quote or indicator at the start; no space; no colon at the end. IPv6 ranges may be unquoted.
_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@:+,-]*(?<!:)")
# Words that YAML 1.1 reads as a boolean or null when they are unquoted.
_RESERVED = frozenset(("on", "off", "yes", "no", "y", "n", "true", "false", "null"))


@dataclass(frozen=True)
class Manifest:
    """One Kubernetes object, with comments for its readers.

    Attributes:
        notes: Comments by place in ``body`` (``spec.template.spec.containers[0].args``; "" is the object itself). Each
            is written above its place; JSON leaves them out.
    """

    body: Mapping[str, Any]
    notes: Mapping[str, str] = field(default_factory=dict)


def as_json(manifests: Sequence[Manifest]) -> str:
    """Write all objects as one ``v1`` List, which ``kubectl apply -f`` accepts."""
    items = [manifest.body for manifest in manifests]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def as_yaml(manifests: Sequence[Manifest], head: str = "") -> str:
    """Write one document per object, with its notes as comments.

    The text of a list or dict that several objects share (by identity, not equality) is generated once and reused,
    because ten thousand pods of one template differ in little.

    Args:
        head: Text of a comment above all documents.
    """
    seen: _Seen = {}
    texts = [_emit_document(manifest, seen) for manifest in manifests]
    comment = "".join(f"{line}\n" for line in _comment(head))
    return f"{comment}---\n" + "---\n".join(texts)


def entry(key: str, value: Any, comment: str, indent: str = "") -> str:
    """Write one key of a mapping and its value, with ``comment`` at the end of the first line."""
    first, rest = _mapping({key: value}, "", {}, indent, {}).split("\n", 1)
    return f"{first}  # {printable(comment)}\n{rest}"


_Seen = dict[tuple[int, str], str]
_Notes = dict[str, str]


def _emit_document(manifest: Manifest, seen: _Seen) -> str:
    notes = dict(manifest.notes)
    text = _note("", notes, "") + _mapping(manifest.body, "", notes, "", {} if notes else seen)
    if notes:
        raise ValueError(f"notes on places that do not exist: {', '.join(sorted(notes))}")
    return text


def _note(place: str, notes: _Notes, indent: str) -> str:
    """Return the comment at ``place``, and remove it from ``notes``."""
    return "".join(f"{indent}{line}\n" for line in _comment(notes.pop(place))) if place in notes else ""


def _comment(text: str) -> Iterator[str]:
    for line in _filled(text):
        yield f"# {printable(line)}".rstrip()


def _filled(text: str) -> Iterator[str]:
    """Fill paragraphs to `WIDTH` characters. An indented line is a command to copy and stays unchanged."""
    lines = text.splitlines()
    for kept, group in groupby(lines, key=lambda line: not line or line.startswith(" ")):
        if kept:
            yield from group
        else:
            yield from textwrap.wrap(" ".join(group), WIDTH, break_on_hyphens=False, break_long_words=False)


def _mapping(value: Mapping[str, Any], path: str, notes: _Notes, indent: str, seen: _Seen) -> str:
    parts = []
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        note = _note(place, notes, indent) if notes else ""
        parts.append(f"{note}{indent}{_text(key)}:{_value(item, place, notes, indent, seen)}")
    return "".join(parts)


def _value(item: Any, place: str, notes: _Notes, indent: str, seen: _Seen) -> str:
    """Return the text that follows a key and its colon, including the newline."""
    if isinstance(item, str):
        return f" {_block(item, f'{indent}  ')}" if _is_block(item) else f" {_text(item)}\n"
    if isinstance(item, (dict, Mapping)) and item:
        return "\n" + _once(_mapping, item, place, notes, f"{indent}  ", seen)
    if isinstance(item, (list, tuple)) and item:
        return "\n" + _once(_items, item, place, notes, indent, seen)
    return f" {_scalar(item)}\n"


def _once(write: Callable[..., str], item: Any, place: str, notes: _Notes, indent: str, seen: _Seen) -> str:
    """Call ``write``, or reuse its text. The text is kept from the second call on: most items occur only once."""
    key = (id(item), indent)
    text = seen.get(key)
    if text:
        return text
    written = write(item, place, notes, indent, seen)
    seen[key] = "" if text is None else written
    return written


def _items(value: Sequence[Any], path: str, notes: _Notes, indent: str, seen: _Seen) -> str:
    deeper = f"{indent}  "
    parts = []
    for number, item in enumerate(value):
        place = f"{path}[{number}]"
        if notes:
            parts.append(_note(place, notes, indent))
        if isinstance(item, (dict, Mapping)) and item:
            text = _once(_mapping, item, place, notes, deeper, seen)
        elif isinstance(item, (list, tuple)) and item:
            text = _once(_items, item, place, notes, deeper, seen)
        elif isinstance(item, str) and _is_block(item):
            text = f"{deeper}{_block(item, f'{deeper}  ')}"
        else:
            text = f"{deeper}{_scalar(item)}\n"
        parts.append(f"{indent}- {text[len(deeper) :]}")
    return "".join(parts)


def _is_block(text: str) -> bool:
    """Return whether a literal block without an indentation indicator preserves ``text`` exactly."""
    if "\n" not in text:
        return False
    lines = text.removesuffix("\n").split("\n")
    return (
        all(line.isprintable() for line in lines)
        and bool(lines[0].strip())
        and not lines[0].startswith(" ")
        and bool(lines[-1].strip())
    )


def _block(text: str, indent: str) -> str:
    lines = text.removesuffix("\n").split("\n")
    return f"|{'' if text.endswith(chr(10)) else '-'}\n" + "".join(
        f"{indent}{line}\n" if line else "\n" for line in lines
    )


@lru_cache(maxsize=4096)
def _short(value: str) -> str:
    if _BARE.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if '"' in value and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    # `printable` writes \xNN, \uNNNN and \UNNNNNNNN, which are also YAML's escapes.
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'


def _text(value: str) -> str:
    # Names occur many times, so they are cached; archives occur once, and are not.
    return _short(value) if len(value) <= 400 else _short.__wrapped__(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float) and math.isfinite(value):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))  # without a point, YAML 1.1 reads 1e-05 as text
    if isinstance(value, Mapping) and not value:
        return "{}"
    if isinstance(value, (list, tuple)) and not value:
        return "[]"
    raise TypeError(f"{type(value).__name__} is not plain data")
