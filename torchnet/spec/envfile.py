"""``--env-file``: NAME=VALUE lines, as docker and kubectl read them: nothing expanded, no quotes taken off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torchnet.spec.words import parse_variables

SIZE_LIMIT = 1 << 20


def read(path: Path) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """The variables with their line numbers, and what is wrong with the file, one sentence each."""
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        return {}, [(error.strerror or str(error)).lower()]
    except ValueError:
        return {}, ["has a NUL character in its name"]
    if len(data) > SIZE_LIMIT:
        return {}, [f"has more than {SIZE_LIMIT} bytes, and no more are read"]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 (byte {error.start})"]
    found: dict[str, tuple[str, int]] = {}
    wrong = []
    for number, name, value in _pairs(text):
        try:
            if value is None:
                raise ValueError("there is no = in it")
            parse_variables({name: value})
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            found[name] = (value, number)
    return found, wrong


def _pairs(text: str) -> Iterator[tuple[int, str, str | None]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            yield number, name.strip().removeprefix("export ").strip(), value if equals else None
