"""The bytecode of an archive's modules in one file, for the next start from the same archive.

From a zip, Python compiles each module at each start, and even twice: zipimport compiles it to tell its file's name. In
a pod's two containers that took 0.2 s each. To extract the modules, so that Python caches each one's bytecode, took
0.07 s: two hundred small files.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType

_known: dict[str, CodeType] = {}  # and not imported yet
_compiled: dict[str, CodeType] = {}  # here, or known


class _Importer(zipimport.zipimporter):
    """Imports from the archive; :meth:`get_code` compiles only what is not known."""

    def get_code(self, fullname: str) -> CodeType:
        code = _known.pop(fullname, None) or super().get_code(fullname)
        _compiled[fullname] = code
        return code

    def get_filename(self, fullname: str) -> str:
        place = os.path.join(self.archive, self.prefix, fullname.rpartition(".")[2])
        return f"{place}{os.sep}__init__.py" if self.is_package(fullname) else f"{place}.py"


def install(archive: str, path: str) -> None:
    """Import what comes from ``archive`` by the bytecode in the file ``path``, if it is of this archive and Python."""
    try:
        with open(path, "rb") as file:
            key, codes = marshal.load(file)
        if key == _key(archive):
            _known.update(codes)
    except (OSError, EOFError, ValueError, TypeError):
        pass  # there is none, or it is incomplete

    def importer(place: str) -> _Importer:
        if place != archive and not place.startswith(archive + os.sep):
            raise ImportError("not in the archive")
        return _Importer(place)

    sys.path_hooks.insert(0, importer)
    for place in [place for place in sys.path_importer_cache if place.startswith(archive)]:
        del sys.path_importer_cache[place]


def compile_modules(package: ModuleType) -> Iterator[None]:
    """Compile the modules of a package in the archive that are not imported yet, one with each step."""
    import pkgutil

    for finder, name, _ in pkgutil.iter_modules(package.__path__):
        if isinstance(finder, _Importer) and f"{package.__name__}.{name}" not in _compiled:
            finder.get_code(f"{package.__name__}.{name}")
            yield


def save(archive: str, path: str) -> None:
    """Write the file for the next start, unless it exists; without space or rights that start takes longer."""
    if not path or os.path.exists(path):
        return
    part = f"{path}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(marshal.dumps((_key(archive), _compiled)))
        os.replace(part, path)
    except OSError:
        return


def _key(archive: str) -> tuple[bytes, int, int, str]:
    found = os.stat(archive)
    return MAGIC_NUMBER, found.st_size, found.st_mtime_ns, archive
