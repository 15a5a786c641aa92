"""Parsers for settings: rates, durations, numbers, ranks, switches, names and lists. Pure.

Each ``parse_*`` function takes the text or native value of a flag, an environment variable or a TOML file. It returns
the value in base units or raises ``ValueError``, whose text completes a sentence that begins with the value.
`torchnet.config.settings` declares which values a field accepts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchnet.agent import stop_signals
from torchnet.text import listed, printable

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STREAMS = re.compile(r"[0-3]|[0-9]{1,5}:[0-3](,[0-9]{1,5}:[0-3])*")
_SHOWN = 80
_TEXT_LIMIT = 128 * 1024 - 256
"""Bytes. Linux limits one argument or variable to 128 KiB (MAX_ARG_STRLEN); the difference leaves room for NAME=."""


def quote(value: object) -> str:
    """Format a value for a message: text in double quotes, escaped for the terminal, shortened if it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**30:
        # Python refuses to print integers of more than 4,300 digits, and a TOML file may contain one.
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
    """Parse any text that can be an argument of a process.

    Undecodable bytes of the command line are kept as lone surrogates, and reach the script unchanged.
    """
    if not isinstance(value, str):
        raise ValueError("is not text")
    if "\0" in value:
        raise ValueError("contains a NUL character, which arguments and variables cannot contain")
    try:
        size = len(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise ValueError("contains half of a surrogate pair, which is not a character") from None
    if size > _TEXT_LIMIT:
        raise ValueError(
            f"has {size} bytes; Linux limits an argument or variable to {_TEXT_LIMIT}. Use a file instead"
        )
    return value


def parse_nonempty(value: object) -> str:
    """Parse text that is not blank, such as the name of a file or module."""
    text = parse_text(value)
    if not text.strip():
        raise ValueError("is empty")
    return text


def parse_texts(value: object) -> tuple[str, ...]:
    """Parse a list of texts, such as the arguments of a script."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("is not a list of texts")
    return tuple(parse_text(item) for item in value)


def parse_list(value: object) -> tuple[str, ...]:
    """Parse names from a list or from comma-separated text (a flag may repeat, a variable cannot)."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("is not a list of names")
    return tuple(parse_nonempty(part.strip()) for item in items for part in item.split(","))


def parse_label(value: object) -> str:
    """Parse a DNS-1123 label (RFC 1123 in the form of Kubernetes), from which a run's objects get their names."""
    if not isinstance(value, str):
        raise ValueError("is not text")
    if len(value) > 63:
        raise ValueError(f"has {len(value)} characters; the limit is 63")
    if not _LABEL.fullmatch(value):
        raise ValueError("is not a DNS label")
    return value


def parse_variables(value: object) -> dict[str, str]:
    """Parse environment variables; numbers and booleans of a TOML file become text (true is "1")."""
    if not isinstance(value, dict):
        raise ValueError("is not a table of variables")
    return {_variable_name(name): _variable_text(name, text) for name, text in value.items()}


def _variable_name(name: object) -> str:
    """Parse a name that every shell can export (POSIX.1-2017, XBD 8.1)."""
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ValueError(f"{quote(name)} is not a valid variable name")
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


def parse_signals(value: object) -> tuple[str, ...]:
    """Parse names of signals, and leave out those that always stop a job."""
    names = dict.fromkeys(parse_list(value)) if value not in ((), []) else {}
    always = {signal.name for signal in stop_signals.SIGNALS}
    for name in names:
        if name not in stop_signals.NAMES:
            raise ValueError(f"contains {quote(name)}, which is not the name of a signal that can be handled")
    return tuple(name for name in names if name not in always)


def parse_streams(value: object) -> str:
    """Parse torchrun's ``--tee`` or ``--redirects``: 1 stdout, 2 stderr, 3 both; by local rank ``"0:1,1:3"``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 3 else value
    text = text.removeprefix("=") if isinstance(text, str) else text  # argparse reads -t=3 as -t 3
    if not isinstance(text, str) or not _STREAMS.fullmatch(text):
        raise ValueError("is neither a number from 0 to 3 nor a list of LOCAL_RANK:0..3")
    return text


# tc(8): "bit" units are decimal, the "i" forms binary. tc's "bps" units are bytes per second. They are deliberately
# not supported: elsewhere Gbps means gigabits, and guessing could be wrong by a factor of eight.
_RATE_UNITS = {"": 1, "bit": 1} | {
    f"{prefix}{i}bit": (1024 if i else 1000) ** power
    for power, prefix in enumerate("kmgt", start=1)
    for i in ("", "i")
}
_DURATION_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,12}))?\s*([a-z]*)(?:/s)?")
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)\s*")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?")
RANK_LIMIT = 1_000_000
RATES = (1_000_000, 30_000_000_000)
"""Bits per second: the lowest and the highest rate of a local network."""


def parse_whole(value: object) -> int:
    """Parse ``4`` or ``"4"``. A boolean is rejected, although it is an int in Python."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    raise ValueError("is not a whole number")


def parse_number(value: object) -> float:
    """Parse ``0.95`` or ``"0.95"``; NaN and infinities are rejected."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18:
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    raise ValueError("is not a number")


def parse_switch(value: object) -> bool:
    """Parse a boolean, or a word for one in an environment variable (true, false, yes, no, on, off, 1, 0)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off", ""):
            return False
    raise ValueError("is neither true nor false")


def _scaled(value: object, units: dict[str, int]) -> int | None:
    """Scale by integer arithmetic: in floating point, 2.3 * 10**9 is not an integer. None if the value is invalid."""
    if isinstance(value, float) and 0 <= value < 1e18 and value == int(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _QUANTITY.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None or match[3] not in units:
        return None
    fraction = match[2] or ""
    scaled, rest = divmod(int(match[1] + fraction) * units[match[3]], 10 ** len(fraction))
    return None if rest else scaled


def parse_rate(value: object) -> int:
    """Parse ``"1gbit"``, ``"2.5gbit"`` (tc's units) or a plain number to bits per second."""
    rate = _scaled(value, _RATE_UNITS)
    if rate is not None:
        return rate
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+\s*[kmgt]?i?bps", value.strip().lower()):
        raise ValueError('is ambiguous: tc reads "bps" as bytes, most people as bits; use bit')
    raise ValueError("is not a rate")


def format_rate(rate: int) -> str:
    """Format bits per second so that `parse_rate` restores the exact value: ``"2.5gbit"``."""
    for power, prefix in ((12, "t"), (9, "g"), (6, "m"), (3, "k")):
        if rate >= 10**power and rate % 10 ** (power - 3) == 0:
            whole, rest = divmod(rate // 10 ** (power - 3), 1000)
            fraction = f".{rest:03d}".rstrip("0") if rest else ""
            return f"{whole}{fraction}{prefix}bit"
    return f"{rate}bit"


def parse_duration(value: object) -> float:
    """Parse ``10``, ``"10s"``, ``"5min"``, ``"1h30m"`` to seconds; negative values are rejected."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    text = value.strip().lower() if isinstance(value, str) else ""
    parts = [(match[1], match[2]) for match in _DURATION_PART.finditer(text)]
    if not parts or _DURATION_PART.sub("", text):
        raise ValueError("is not a duration")
    if len(parts) == 1 and not parts[0][1]:
        return float(parts[0][0])
    if any(unit not in _DURATION_UNITS for _, unit in parts):
        raise ValueError("is not a duration")
    return sum(float(amount) * _DURATION_UNITS[unit] for amount, unit in parts)


def format_duration(seconds: float) -> str:
    """Format seconds in the largest unit that gives a whole number, such as ``"5min"`` for 300.0; else in seconds."""
    for unit in ("d", "h", "min", "s"):
        amount = seconds / _DURATION_UNITS[unit]
        if seconds and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{seconds:g}s"


def parse_ranks(value: object) -> tuple[int, ...]:
    """Parse ``"0,3"``, ``"0-3"``, ``""``, a number or a list of numbers to sorted, distinct ranks."""
    if isinstance(value, (list, tuple)):
        ranks = {parse_whole(item) for item in value}
    elif isinstance(value, int) and not isinstance(value, bool):
        ranks = {value}
    elif isinstance(value, str):
        ranks = set[int]()
        for part in value.split(",") if value.strip() else ():
            match = re.fullmatch(r"\s*([0-9]{1,7})\s*(?:-\s*([0-9]{1,7})\s*)?", part)
            if match is None:
                raise ValueError(f"contains {quote(part)}, which is neither a rank nor a range of ranks")
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise ValueError(f"contains the range {first}-{last}, whose end is before its start")
            if last < RANK_LIMIT:
                ranks.update(range(first, last + 1))
            else:
                ranks.add(last)
    else:
        raise ValueError("is not a list of ranks")
    if any(not 0 <= rank < RANK_LIMIT for rank in ranks):
        raise ValueError(f"contains a rank outside 0 to {RANK_LIMIT - 1}")
    return tuple(sorted(ranks))


def beyond(ranks: Sequence[int], count: int) -> str:
    """List, for a message, the ``ranks`` that a job of ``count`` ranks does not have; "" if it has all of them."""
    return listed([str(rank) for rank in ranks if rank >= count])
