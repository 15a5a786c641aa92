"""Add the peers to the worker's hosts file, so that lookups of their addresses stay local.

TCPStore looks up the name of each address that it connects to or from, and waits for the answer (pytorch#159007):
5 s per connection if no server answers for the reverse zone. Its server listens on a socket of both families, where an
IPv4 peer has an IPv4-mapped IPv6 address (::ffff:10.7.0.2), which the C library's hosts file does not match with the
IPv4 address: each IPv4 address needs two lines.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from torchnet.agent.handover import SHARED, put
from torchnet.network.peer_table import PeerTable

PATH = "/etc/hosts"
_SHOWN = 16  # lines


def add_peers(table: PeerTable, run_id: str, *, path: str = PATH) -> bool:
    """Write a line for each worker and rail; return False if the file is not accessible.

    Names resolve to the backend. eth0's addresses also get a name, since the store may look them up too. Each line
    names its job: the file may be the machine's own and hold other jobs' lines.
    """
    return _replaced(_lines(table, run_id), run_id, path)


def unchanged(table: PeerTable, *, private: bool) -> str:
    """Describe what it costs that the file stays as it is, with the lines that avoid it.

    Args:
        private: whether it is this worker's alone, but cannot be written.
    """
    lines = [
        " ".join(pair) for row in table.rows for rail in row.rails for pair in _pairs(rail.address, row.name)
    ]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    why = f"{PATH} cannot be written" if private else f"{PATH} is this machine's own, and stays unchanged"
    text = (
        f"{why}: PyTorch's store looks up the name of each address, which takes up to 5 s per connection if no name "
        f"server answers; fix: add to {PATH} on each host, unless its look-ups are fast:"
    )
    return "\n".join([text, *lines[:_SHOWN], *more])


def is_private(*, path: str = PATH, mounts: str = "/proc/self/mountinfo") -> bool:
    """Return whether the file is a mount of its own, as in pods, containers and local nodes.

    A new mount namespace is not enough: it shows the machine's own file. Some containers mount exactly that one
    (Apptainer).

    Source:
        proc_pid_mountinfo(5): field 4 is the file's path in its file system, field 5 the mount point.
    """
    target = os.path.realpath(path)
    with open(mounts) as file:
        sources = [fields[3] for line in file if (fields := line.split())[4] == target]
    return bool(sources) and not sources[-1].endswith(PATH)


def write_copy(target: Path, *, path: str = PATH) -> None:
    """Write a copy of the hosts file, to be mounted in another container, which adds the peers.

    Raises:
        OSError: a file cannot be read or written.
    """
    put(target, Path(path).read_bytes(), SHARED)


def remove_peers(run_id: str, *, path: str = PATH) -> None:
    """Remove the job's lines; the next job has other addresses."""
    _replaced("", run_id, path)


def _replaced(ours: str, run_id: str, path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            old = file.read()
        text = _with(old, ours, run_id)
        if text != old:
            # Write in place: in a pod the file itself is a mount.
            with open(path, "r+", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
                file.truncate()
    except OSError:
        return False
    return True


def _with(old: str, ours: str, run_id: str) -> str:
    kept = re.sub(f"(?m)^[^#\n]*{re.escape(_mark(run_id))}\n", "", old)
    return kept + ("\n" if ours and kept and not kept.endswith("\n") else "") + ours


def _mark(run_id: str) -> str:
    return f"\t# torchnet {run_id!a}"


def _lines(table: PeerTable, run_id: str) -> str:
    # The C library reads the file from its start for each look-up, and rank 0's store looks up each connection: rails
    # first, frontends last.
    lines: list[tuple[str, str]] = []
    for number in range(max((len(row.rails) for row in table.rows), default=0)):
        for row in table.rows:
            suffix = "" if number == 0 else f"-rail{number + 1}"
            for rail in row.rails[number : number + 1]:
                lines += _pairs(rail.address, f"{row.name}{suffix}")
    for row in table.rows:
        # A link-local address needs an interface, which a hosts file cannot express.
        frontend = [address for address in row.eth0 if not address.startswith("fe80:")]
        for address in frontend:
            lines += _pairs(address, f"{row.name}-frontend")
    return "".join(f"{address}\t{name}{_mark(run_id)}\n" for address, name in lines)


def _pairs(address: str, name: str) -> list[tuple[str, str]]:
    # The mapped address has a name of its own: look-ups of the other name must not find it.
    mapped = [] if ":" in address else [(f"::ffff:{address}", f"{name}-mapped")]
    return [(address, name), *mapped]
