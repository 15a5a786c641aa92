"""Checks a value against a JSON schema: of draft 2020-12 the part that the receipt's schema uses, and no more."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
_WORDS_ABOUT = {"$schema", "$id", "$defs", "title", "description", "default"}


def errors(
    value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "$"
) -> list[str]:
    """Where ``value`` is not what the schema says; a keyword that is not known here is an error, too."""
    root = root if root is not None else schema
    found: list[str] = []
    for word, told in schema.items():
        if word in _WORDS_ABOUT or word == "then":
            continue
        check = _CHECKS.get(word)
        found += (
            [f"{at}: keyword {word} is not known"] if check is None else check(value, told, schema, root, at)
        )
    return found


def _ref(value: Any, told: str, _schema: Any, root: dict[str, Any], at: str) -> list[str]:
    return errors(value, root["$defs"][told.removeprefix("#/$defs/")], root, at)


def _type(value: Any, told: str, _schema: Any, _root: Any, at: str) -> list[str]:
    right = isinstance(value, _TYPES[told]) and (not isinstance(value, bool) or told == "boolean")
    return [] if right else [f"{at}: {value!r} is no {told}"]


def _any_of(value: Any, told: list[dict[str, Any]], _schema: Any, root: dict[str, Any], at: str) -> list[str]:
    tried = [errors(value, one, root, at) for one in told]
    return [] if not all(tried) else [line for one in tried for line in one]


def _properties(value: Any, told: dict[str, Any], _schema: Any, root: dict[str, Any], at: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [
        e
        for name, one in told.items()
        if name in value
        for e in errors(value[name], one, root, f"{at}.{name}")
    ]


def _additional(value: Any, told: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    if not isinstance(value, dict) or told is True:
        return []
    more = [name for name in value if name not in schema.get("properties", {})]
    if told is False:
        return [f"{at}: {name} is not allowed" for name in more]
    return [error for name in more for error in errors(value[name], told, root, f"{at}.{name}")]


def _required(value: Any, told: list[str], _schema: Any, _root: Any, at: str) -> list[str]:
    return [f"{at}: {name} is missing" for name in told if isinstance(value, dict) and name not in value]


def _items(value: Any, told: dict[str, Any], _schema: Any, root: dict[str, Any], at: str) -> list[str]:
    if not isinstance(value, list):
        return []
    return [error for number, one in enumerate(value) for error in errors(one, told, root, f"{at}[{number}]")]


def _if(value: Any, told: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    return errors(value, schema["then"], root, at) if not errors(value, told, root, at) else []


def _says(right: Any, text: str) -> Any:
    def check(value: Any, told: Any, _schema: Any, _root: Any, at: str) -> list[str]:
        return [] if right(value, told) else [f"{at}: {value!r} {text} {told!r}"]

    return check


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


_CHECKS: dict[str, Any] = {
    "$ref": _ref,
    "type": _type,
    "anyOf": _any_of,
    "properties": _properties,
    "additionalProperties": _additional,
    "required": _required,
    "items": _items,
    "if": _if,
    "enum": _says(lambda value, told: value in told, "is none of"),
    "const": _says(lambda value, told: value == told, "is not"),
    "minimum": _says(lambda value, told: not _number(value) or value >= told, "is below"),
    "maximum": _says(lambda value, told: not _number(value) or value <= told, "is above"),
    "pattern": _says(
        lambda value, told: not isinstance(value, str) or re.search(told, value), "does not match"
    ),
}
