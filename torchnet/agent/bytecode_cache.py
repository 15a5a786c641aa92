"""The bytecode of an archive's modules in files, for the next start from the same archive.

From a zip, Python compiles each module at each start, and even twice: zipimport compiles it to tell its file's name. To
compile all of them once takes 0.11 s. To extract them, so that Python caches the bytecode of each, takes 0.07 s more.

One file has what this start needs itself. The other has what the pod's next container needs: a child process of low
priority compiles it meanwhile, as far as it gets until this process ends. Both containers together then take 0.04 to
0.07 s less; with a limit of one CPU, which the two processes share, 0.01 to 0.03 s.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import zipimport
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from signal import SIGKILL
from types import CodeType
from typing import Any

# What a pod's training container starts with, beyond what its init container loads itself.
TRAINING = (
    "torchnet.agent.accounting",
    "torchnet.agent.admission",
    "torchnet.agent.agent",
    "torchnet.agent.coordinator",
    "torchnet.agent.dns_client",
    "torchnet.agent.framed_socket",
    "torchnet.agent.handshake",
    "torchnet.agent.heartbeat",
    "torchnet.agent.host_registration",
    "torchnet.agent.join",
    "torchnet.agent.link_monitor",
    "torchnet.agent.membership",
    "torchnet.agent.message_socket",
    "torchnet.agent.messages",
    "torchnet.agent.name_lookup",
    "torchnet.agent.output_writer",
    "torchnet.agent.path_results",
    "torchnet.agent.preflight",
    "torchnet.agent.process_env",
    "torchnet.agent.process_tree",
    "torchnet.agent.progress_meter",
    "torchnet.agent.rank0_lookup",
    "torchnet.agent.rank_command",
    "torchnet.agent.rank_logs",
    "torchnet.agent.rank_process",
    "torchnet.agent.rate_sampler",
    "torchnet.agent.rdma",
    "torchnet.agent.rdma_check",
    "torchnet.agent.rdma_counters",
    "torchnet.agent.rendezvous",
    "torchnet.agent.rendezvous_client",
    "torchnet.agent.share_bounds",
    "torchnet.agent.stall",
    "torchnet.agent.state_machine",
    "torchnet.agent.store_port",
    "torchnet.agent.torch_build",
    "torchnet.agent.training_phase",
    "torchnet.agent.transports",
    "torchnet.agent.worker",
    "torchnet.agent.worker_processes",
    "torchnet.linux.cgroup",
    "torchnet.linux.namespaces",
    "torchnet.linux.protocol_counters",
    "torchnet.linux.sock_diag",
    "torchnet.network.dns_message",
    "torchnet.network.env_vars",
    "torchnet.network.path_diagnosis",
    "torchnet.network.probe_plan",
    "torchnet.rlimits",
)
_REST = "-rest"
_known: dict[str, CodeType] = {}  # and not imported yet
_compiled: dict[str, CodeType] = {}  # here, or known
_child = 0  # the process that compiles TRAINING


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
    """Import what comes from ``archive`` by the bytecode in the files, if it is of this archive and Python.

    Args:
        path: The first file; the second has its name with ``-rest``. "" for no files.
    """
    for part in ("", _REST) if path else ():
        _known.update(_read(archive, path + part))

    def importer(place: str) -> _Importer:
        if place != archive and not place.startswith(archive + os.sep):
            raise ImportError("not in the archive")
        return _Importer(place)

    sys.path_hooks.insert(0, importer)
    for place in [place for place in sys.path_importer_cache if place.startswith(archive)]:
        del sys.path_importer_cache[place]


def compile_rest(archive: str, path: str) -> None:
    """Compile TRAINING into the second file, in a child process, if one can be started; :func:`end` ends it."""
    global _child
    if _known.keys() >= {*TRAINING}:  # this container was started again
        return
    try:
        _child = os.fork()
    except OSError:
        return
    if _child:
        return
    try:
        os.nice(19)
        with open(path + _REST, "wb") as file:
            file.write(_record(_key(archive)))
            for name in TRAINING:
                folder = os.path.join(archive, *name.split(".")[:-1])
                file.write(_record((name, _Importer(folder).get_code(name))))
                file.flush()
    finally:
        os._exit(0)


def save(archive: str, path: str) -> None:
    """Write the first file, unless it exists; without space or rights the next start takes longer."""
    if not path or os.path.exists(path):
        return
    part = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        with open(part, "wb") as file:
            file.writelines(map(_record, (_key(archive), *_compiled.items())))
        os.replace(part, path)


def end() -> None:
    """End the child, if there is one; what it has written is complete."""
    global _child
    child, _child = _child, 0
    if child:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):  # SIGCHLD is ignored
            if not os.waitpid(child, os.WNOHANG)[0]:
                os.kill(child, SIGKILL)
                os.waitpid(child, 0)


def _record(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(4, "little") + data


def _read(archive: str, path: str) -> dict[str, CodeType]:
    """Return the bytecode by module; {} if the file is missing, or of another archive or Python.

    From a file that is cut off or damaged, it is what comes before that.
    """
    found: dict[str, CodeType] = {}
    try:
        with open(path, "rb") as file:
            data = file.read()  # marshal's own load() reads a few bytes at a time: 20 ms
        records = _records(data)
        if next(records, None) == _key(archive):
            found.update(records)
    except (OSError, EOFError, ValueError, TypeError):
        pass
    return found


def _records(data: bytes) -> Iterator[Any]:
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        yield marshal.loads(data[at + 4 : end])
        at = end


def _key(archive: str) -> tuple[bytes, int, int, str]:
    found = os.stat(archive)
    return MAGIC_NUMBER, found.st_size, found.st_mtime_ns, archive
