"""``static:net1=ADDRESS/LEN,…``: addresses that the job's objects give, so that nobody has to be asked."""

from __future__ import annotations

import ipaddress

from torchnet.errors import UsageError
from torchnet.network.sources import interface_problem, literal
from torchnet.network.status import StatusEntry, canonical
from torchnet.network.text import printable

FORM = "static:net1=ADDRESS/LEN[,net2=ADDRESS/LEN…]"


class StaticAddresses:
    """An address source that asks neither a file nor the API.

    Args:
        spec: the flag's value, ``static:net1=fcbb::2/64``; the kernel must have just that address there.
        rank0: rank 0's addresses, rail by rail, or the first rail's alone; bare literals.
        attachments: the attachments' names by rail, as far as they are known.

    Raises UsageError that names every wrong part.
    """

    def __init__(self, spec: str, rank0: tuple[str, ...], attachments: tuple[str, ...] = ()) -> None:
        self._entries = tuple(
            StatusEntry(
                name=attachments[number].partition("@")[0] if number < len(attachments) else f"static:{name}",
                interface=name,
                ips=(address,),
                origin="--address-source",
            )
            for number, (name, address) in enumerate(pairs(spec))
        )
        self._rank0 = tuple(literal(text) for text in rank0)

    def attachments(self) -> tuple[StatusEntry, ...]:
        return self._entries

    def rank0(self) -> tuple[str, ...]:
        return self._rank0


def pairs(spec: str) -> list[tuple[str, str]]:
    """(interface, canonical address) by rail. Raises UsageError."""
    found: list[tuple[str, str]] = []
    wrong = []
    for part in spec.partition(":")[2].split(","):
        name, _, text = part.partition("=")
        address, slash, length = text.partition("/")
        problem = interface_problem(name)
        bare = canonical(address)
        if problem:
            wrong.append(problem)
        elif bare is None or ipaddress.ip_address(bare).is_link_local:
            wrong.append(f'"{printable(text, 80)}" for {name} is no global IP address')
        elif slash and not (length.isdigit() and int(length) <= (128 if ":" in bare else 32)):
            wrong.append(f'"{printable(text, 80)}" for {name} has no prefix length after "/"')
        elif name in dict(found):
            wrong.append(f"{name} stands twice")
        else:
            found.append((name, bare))
    if wrong:
        raise UsageError(f'address source "{printable(spec, 120)}": ' + "; ".join(wrong), fix=f"use {FORM}")
    return found
