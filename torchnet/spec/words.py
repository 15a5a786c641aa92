"""Text as it comes from people and files: shown safely, checked as names, split into lists. All pure."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STREAMS = re.compile(r"[0-3]|[0-9]{1,5}:[0-3](,[0-9]{1,5}:[0-3])*")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def escape(text: str) -> str:
    """``text`` with everything that a terminal could act on written as an escape that YAML and Python know.

    Control characters, ANSI sequences, bidirectional overrides and undecodable bytes (which Python keeps as
    lone surrogates) are not printable in Unicode's sense; they become ``\\xHH``, ``\\uHHHH``, ``\\UHHHHHHHH``.
    """
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_escape_one(char) for char in text)


def _escape_one(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(value: object, limit: int = 80) -> str:
    """A value for an error message: escaped, text in double quotes, cut at ``limit`` characters."""
    text = value if isinstance(value, str) else repr(value) if not isinstance(value, int) else _number(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if isinstance(value, str):
        return f'"{escape(cut)}"'
    return "".join(char if char.isprintable() else _escape_one(char) for char in cut)


def _number(value: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # Python refuses to print integers of more than 4,300 digits, and TOML may bring one.
    return str(value) if -(10**30) < value < 10**30 else "a number of more than 30 digits"


def parse_text(value: object) -> str:
    """Any text that can be an argument of a process: not empty of type, and without NUL.

    Undecodable bytes of the command line are kept (as lone surrogates) and reach the script unchanged.
    """
    if not isinstance(value, str):
        raise ValueError("is not text")
    if "\0" in value:
        raise ValueError("holds a NUL character, which no process can be given")
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
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("is not a list of names")
    return tuple(parse_nonempty(part.strip()) for item in items for part in item.split(",") if item)


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
    return {check_variable(name): _variable_text(text) for name, text in value.items()}


def check_variable(name: object) -> str:
    """The name of an environment variable that every shell can export (POSIX XBD 8.1)."""
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ValueError(f"has the name {quote(name)}, which is no variable's")
    return name


def _variable_text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return parse_text(str(value) if isinstance(value, (int, float)) else value)


def parse_streams(value: object) -> str:
    """torchrun's ``--tee``, ``--redirects``: ``"3"`` (1 stdout, 2 stderr), by local rank ``"0:1,1:3"``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _STREAMS.fullmatch(text):
        raise ValueError("is neither 0 to 3 nor a list of LOCAL_RANK:0..3")
    return text
