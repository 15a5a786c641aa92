"""Zip archives whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the format's first moment
_UNIX, _REGULAR = 3, 0o100000


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its path with slashes, and what is in it."""

    name: str
    data: bytes
    executable: bool = False


def zipped(entries: Iterable[Entry]) -> bytes:
    """An archive of ``entries`` by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry in sorted(entries, key=lambda entry: entry.name):
            info = zipfile.ZipInfo(entry.name, _EPOCH)
            info.create_system = _UNIX
            info.external_attr = (_REGULAR | (0o755 if entry.executable else 0o644)) << 16
            archive.writestr(info, entry.data, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()
