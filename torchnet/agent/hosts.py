"""The peers in the worker's own hosts file, so that no look-up of their addresses leaves the machine.

TCPStore looks up the name of each address that it connects to or from, and waits for the answer (pytorch#159007):
5 s a connection where the reverse zone is not served.
"""

from __future__ import annotations

from pathlib import Path

from torchnet.agent.state import put
from torchnet.network.table import Table

PATH = "/etc/hosts"
_BEGIN, _END = "# torchnet: the job's workers", "# torchnet: end"


def add_peers(table: Table, path: str = PATH) -> bool:
    """Write a line for each worker and rail; False where the file is not ours to write.

    Names lead to the backend; eth0's addresses get a name, too, since the store may look those up as well.
    """
    return _replaced(_block(table), path)


def write_copy(table: Table, target: Path, path: str = PATH) -> None:
    """A copy of the hosts file with the peers' names in it, to be mounted in another container. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        kept = _without_ours(file.read())
    text = kept + ("" if not kept or kept.endswith("\n") else "\n") + _block(table)
    put(target, text.encode("utf-8", "surrogateescape"))


def remove_peers(path: str = PATH) -> None:
    """Take the lines out again: the file may be the machine's own, and other jobs have other addresses."""
    _replaced("", path)


def _replaced(ours: str, path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            old = file.read()
        kept = _without_ours(old)
        text = kept + ("\n" if ours and kept and not kept.endswith("\n") else "") + ours
        if text != old:
            # In place: in a pod the file itself is a mount.
            with open(path, "r+", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
                file.truncate()
    except OSError:
        return False
    return True


def _block(table: Table) -> str:
    return "\n".join([_BEGIN, *_lines(table), _END]) + "\n"


def _lines(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        for number, rail in enumerate(row.rails):
            lines.append(f"{rail.address}\t{row.name}{'' if number == 0 else f'-rail{number + 1}'}")
        # Link-local addresses belong to an interface as well, which a hosts file cannot say.
        frontend = [address for address in row.eth0 if not address.startswith("fe80:")]
        lines += [f"{address}\t{row.name}-frontend" for address in frontend]
    return lines


def _without_ours(text: str) -> str:
    if _BEGIN in text:
        before, _, rest = text.partition(_BEGIN)
        text = before + rest.partition(_END + "\n")[2]
    return text
