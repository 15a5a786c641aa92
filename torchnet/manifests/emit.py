"""Objects as YAML or JSON text: the same bytes for the same objects, and fit to be read by people.

The emitter is torchnet's own, since the data is plain (dicts, lists, text, whole numbers, booleans, null), no
YAML library is among the run-time dependencies, and none of them keeps comments. Text of several lines becomes
a literal block, so that a script or a network's configuration in it can be read; any other text stands bare
only where neither YAML 1.1 (PyYAML, kubectl) nor 1.2 could take it for something else.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from torchnet.network.text import printable

WIDTH = 100  # of comments

# No digit, sign, quote or indicator at the start; no space; no colon at the end. IPv6 ranges may stand bare.
_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@:+,-]*(?<!:)")
# What YAML 1.1 reads as a boolean or null when it stands bare.
_RESERVED = frozenset(("on", "off", "yes", "no", "y", "n", "true", "false", "null"))


@dataclass(frozen=True)
class Manifest:
    """One object for the API server, with comments for its readers.

    ``notes`` maps places in ``body`` (``spec.template.spec.containers[0].args``; "" is the object itself) to
    the comment above that place. JSON has no comments and leaves them out.
    """

    body: Mapping[str, Any]
    notes: Mapping[str, str] = field(default_factory=dict)


def as_json(manifests: Sequence[Manifest]) -> str:
    """One ``v1`` List of all objects, as ``kubectl apply -f`` takes it."""
    items = [manifest.body for manifest in manifests]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def as_yaml(manifests: Sequence[Manifest], head: str = "") -> str:
    """A document for each object, with its notes as comments; ``head`` becomes a comment above all."""
    texts = ["".join(f"{line}\n" for line in _document(manifest)) for manifest in manifests]
    comment = "".join(f"{line}\n" for line in _comment(head))
    return f"{comment}---\n" + "---\n".join(texts)


def _document(manifest: Manifest) -> list[str]:
    notes = dict(manifest.notes)
    lines = [*_comment(notes.pop("", "")), *_mapping(manifest.body, "", notes)]
    if notes:
        raise ValueError(f"notes on places that do not exist: {', '.join(sorted(notes))}")
    return lines


def _comment(text: str) -> Iterator[str]:
    for line in _filled(text):
        yield f"# {printable(line)}".rstrip()


def _filled(text: str) -> Iterator[str]:
    """Paragraphs filled to `WIDTH`. A line that is indented is a command to copy: it stays as it is."""
    lines = text.splitlines()
    for kept, group in groupby(lines, key=lambda line: not line or line.startswith(" ")):
        if kept:
            yield from group
        else:
            yield from textwrap.wrap(" ".join(group), WIDTH, break_on_hyphens=False, break_long_words=False)


def _mapping(value: Mapping[str, Any], path: str, notes: dict[str, str]) -> Iterator[str]:
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        yield from _comment(notes.pop(place, ""))
        yield from _entry(f"{_scalar(key)}:", item, place, notes)


def _entry(name: str, item: Any, place: str, notes: dict[str, str]) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        yield name
        yield from (f"  {line}" if line else "" for line in _mapping(item, place, notes))
    elif isinstance(item, (list, tuple)) and item:
        yield name
        yield from _items(item, place, notes)
    elif isinstance(item, str) and _is_block(item):
        yield from _block(name, item)
    else:
        yield f"{name} {_scalar(item)}"


def _items(value: Sequence[Any], path: str, notes: dict[str, str]) -> Iterator[str]:
    for number, item in enumerate(value):
        place = f"{path}[{number}]"
        yield from _comment(notes.pop(place, ""))
        if isinstance(item, Mapping) and item:
            lines = list(_mapping(item, place, notes))
        elif isinstance(item, (list, tuple)) and item:
            lines = list(_items(item, place, notes))
        elif isinstance(item, str) and _is_block(item):
            lines = list(_block("", item))
        else:
            lines = [_scalar(item)]
        for count, line in enumerate(lines):
            yield f"{'  ' if count else '- '}{line}" if line else ""


def _is_block(text: str) -> bool:
    """Whether a literal block gives back ``text`` exactly, without an indentation indicator."""
    lines = text.removesuffix("\n").split("\n")
    return (
        "\n" in text
        and all(line.isprintable() for line in lines)
        and bool(lines[0].strip())
        and not lines[0].startswith(" ")
        and bool(lines[-1].strip())
    )


def _block(name: str, text: str) -> Iterator[str]:
    yield f"{name} |{'' if text.endswith(chr(10)) else '-'}".lstrip()
    yield from (f"  {line}" if line else "" for line in text.removesuffix("\n").split("\n"))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _BARE.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        if '"' in value and value.isprintable():
            return "'" + value.replace("'", "''") + "'"
        # What is not printable becomes \xNN, \uNNNN or \UNNNNNNNN, which are YAML's escapes, too.
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(escaped)}"'
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, Mapping) and not value:
        return "{}"
    if isinstance(value, (list, tuple)) and not value:
        return "[]"
    raise TypeError(f"{type(value).__name__} is no plain data")
