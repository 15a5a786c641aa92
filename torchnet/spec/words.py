"""Text as it comes from people and files: shown safely, checked as names, split into lists. All pure."""

from __future__ import annotations

import re

from torchnet.network.text import printable

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STREAMS = re.compile(r"[0-3]|[0-9]{1,5}:[0-3](,[0-9]{1,5}:[0-3])*")
_SHOWN = 80
_TEXT_LIMIT = 128 * 1024 - 256
"""Bytes. Linux takes 128 KiB for one argument or variable (MAX_ARG_STRLEN); the rest is for NAME=."""


def quote(value: object) -> str:
    """A value for a message: text in double quotes, nothing a terminal could act on, and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**30:
        # Python itself refuses to print integers of more than 4,300 digits, and a TOML file may bring one.
        return "a number of more than 30 digits"
    if not isinstance(value, str):
        return printable(repr(value), _SHOWN)
    shown = printable(value, _SHOWN)
    return (
        f'"{shown}"'
        if len(value) <= _SHOWN
        else f'"{shown[: shown.rindex("… (")]}…" ({len(value)} characters)'
    )


def parse_text(value: object) -> str:
    """Any text that can be an argument of a process.

    Undecodable bytes of the command line are kept (as lone surrogates) and reach the script unchanged.
    """
    if not isinstance(value, str):
        raise ValueError("is not text")
    if "\0" in value:
        raise ValueError("holds a NUL character, which no process can be given")
    try:
        size = len(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    if size > _TEXT_LIMIT:
        raise ValueError(
            f"has {size} bytes, and a process is given {_TEXT_LIMIT} at most; a file can hold more"
        )
    return value


def parse_nonempty(value: object) -> str:
    """`parse_text`, and not empty: names of files and modules."""
    text = parse_text(value)
    if not text.strip():
        raise ValueError("is empty")
    return text


def parse_texts(value: object) -> tuple[str, ...]:
    """Text after text, as the arguments of a script."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("is not a list of texts")
    return tuple(parse_text(item) for item in value)


def parse_list(value: object) -> tuple[str, ...]:
    """Names from a list, or from text with commas between them (a flag may repeat, a variable cannot)."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("is not a list of names")
    return tuple(parse_nonempty(part.strip()) for item in items for part in item.split(","))


def parse_label(value: object) -> str:
    """A DNS-1123 label (RFC 1123, as Kubernetes reads it): what every object of a run is named after."""
    if not isinstance(value, str):
        raise ValueError("is not text")
    if len(value) > 63:
        raise ValueError(f"has {len(value)} characters")
    if not _LABEL.fullmatch(value):
        raise ValueError("is not a DNS label")
    return value


def parse_variables(value: object) -> dict[str, str]:
    """Environment variables by name; numbers and booleans of a TOML file become text."""
    if not isinstance(value, dict):
        raise ValueError("is not a table of variables")
    return {_variable_name(name): _variable_text(name, text) for name, text in value.items()}


def _variable_name(name: object) -> str:
    """As every shell can export it (POSIX.1-2017, XBD 8.1)."""
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ValueError(f"{quote(name)} is no variable's name")
    return name


def _variable_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)) and abs(value) < 1e30:
        return str(value)
    try:
        return parse_text(value)
    except ValueError as error:
        raise ValueError(f"the value of {name} {error}") from None


def parse_streams(value: object) -> str:
    """torchrun's ``--tee``, ``--redirects``: ``"3"`` (1 stdout, 2 stderr), or by local rank ``"0:1,1:3"``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 3 else value
    if not isinstance(text, str) or not _STREAMS.fullmatch(text):
        raise ValueError("is neither 0 to 3 nor a list of LOCAL_RANK:0..3")
    return text
