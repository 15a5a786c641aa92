"""Extract the job's code, one zip file or its parts, into the working directory.

Anyone who can write the ConfigMap can run code here anyway, but a malformed archive must not write elsewhere.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from torchnet.agent.handover import put
from torchnet.errors import UsageError
from torchnet.text import printable

LARGEST = 1 << 30  # bytes after extraction; a zip in ConfigMaps has at most 3 MiB
MOST = 100_000  # entries
_FILE, _FOLDER = 0o644, 0o755


def unpack(archive: str, folder: str) -> int:
    """Extract ``archive`` below ``folder``, with file modes, and return the number of files.

    If there is no such file, its parts are read: ``archive`` with the suffixes ``.1``, ``.2`` and so on. Existing
    files of the same name are replaced. Other files stay, including volumes mounted below the folder.

    Raises:
        UsageError: the zip is invalid, is too large, would write outside the folder, or cannot be extracted.
    """
    try:
        with zipfile.ZipFile(_joined(archive)) as file:
            entries = file.infolist()
            _check(archive, entries)
            for entry in entries:
                _one(file, entry, Path(folder))
            return sum(1 for entry in entries if not entry.is_dir())
    except OSError as error:
        where = getattr(error, "filename", None) or archive
        text = f"{printable(str(where), 200)}: {error.strerror or error}"
        raise UsageError(text, fix=f"is {folder} writable?") from None
    # zipfile raises RuntimeError for an encrypted file, and its subclass NotImplementedError for a compression method
    # or a format version that this Python cannot read.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UsageError(f"{archive} cannot be read as a zip file: {printable(str(error), 200)}") from None


def _joined(archive: str) -> str | io.BytesIO:
    parts: list[bytes] = []
    while not os.path.exists(archive) and os.path.exists(part := f"{archive}.{len(parts) + 1}"):
        parts.append(Path(part).read_bytes())
    return io.BytesIO(b"".join(parts)) if parts else archive


def _check(archive: str, entries: list[zipfile.ZipInfo]) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > LARGEST or len(entries) > MOST:
        raise UsageError(
            f"{archive} unpacks to {size:,} bytes in {len(entries):,} files, the limit is {LARGEST:,} in {MOST:,}"
        )
    rejected = [printable(entry.filename, 80) for entry in entries if not _inside(entry)]
    if rejected:
        raise UsageError(
            f"{archive} would write outside of its folder or is not a plain file: {', '.join(rejected[:5])}"
        )


def _inside(entry: zipfile.ZipInfo) -> bool:
    """Check for a plain file or folder below the target; a link could redirect later entries outside."""
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return plain and not path.is_absolute() and ".." not in path.parts and "\\" not in entry.filename


def _one(file: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    path = folder / PurePosixPath(entry.filename)
    mode = stat.S_IMODE(entry.external_attr >> 16) & 0o777
    place = path if entry.is_dir() else path.parent
    place.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
    # An existing link could lead outside.
    if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{place} leads outside of {folder}")
    if not entry.is_dir():
        put(path, file.read(entry), mode or _FILE)
