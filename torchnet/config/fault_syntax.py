"""Syntax of faults to inject into the local networks. Pure.

    NODE:INTERFACE:KIND[=VALUE][@SECONDS[+SECONDS]]      node-1:net1:no-carrier@2+3

Without @ the network is built with the fault. With @ the fault starts that many seconds after the nodes exist; the
second number, if present, is its duration.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from torchnet.config import parsing

KINDS = {
    "no-interface": "the interface does not exist",
    "no-address": "the interface has no address",
    "down": "the interface is down",
    "no-carrier": "the interface is up but has no carrier, as after a cut cable",
    "mtu": "=BYTES, an MTU that differs from the others",
    "narrow": "=BYTES, the path drops larger packets, whatever the MTU",
    "address": "=ADDRESS[/PREFIX], replaces the address",
    "add-address": "=ADDRESS[/PREFIX], adds an address",
    "duplicate-detection": "the kernel checks the address for duplicates, as in a pod",
    "wrong-route": "=NODE, the route to this node leaves through eth0",
    "lossy": "all packets are lost, but the carrier stays",
    "loss": "=PERCENT, packet loss in both directions",
    "rate": "=RATE, limit in both directions; overrides --rate",
    "rate-out": "=RATE, limit of outgoing traffic",
}
TIMED = ("no-address", "down", "no-carrier", "mtu", "lossy")
VALUED = ("mtu", "narrow", "address", "add-address", "wrong-route", "loss", "rate", "rate-out")
_FORM = re.compile(
    r"node-(?P<node>\d{1,4}):(?P<interface>net[1-8]):(?P<kind>[a-z-]+)(?:=(?P<value>[^@]+))?"
    r"(?:@(?P<at>\d+(?:\.\d+)?)(?:\+(?P<last>\d+(?:\.\d+)?))?)?"
)


@dataclass(frozen=True)
class Fault:
    """A parsed fault.

    Attributes:
        at: Seconds after the nodes exist; None for a fault that is built into the network.
        last: Duration in seconds; None for a fault that stays.
    """

    node: int
    interface: str
    kind: str
    value: str = ""
    at: float | None = None
    last: float | None = None


def parse(text: str) -> Fault:
    """Parse a fault in the form that the module's docstring describes.

    Raises:
        ValueError: Invalid; the text states the valid form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            "is not NODE:INTERFACE:KIND[=VALUE][@SECONDS[+SECONDS]], such as node-1:net1:no-carrier@2+3"
        )
    kind, value, at, last = match["kind"], match["value"] or "", match["at"], match["last"]
    if kind not in KINDS:
        raise ValueError(f"unknown kind of fault {parsing.quote(kind)}; valid kinds: {', '.join(KINDS)}")
    if (kind in VALUED) != bool(value):
        raise ValueError(f"{kind} {'needs a value: ' + KINDS[kind] if kind in VALUED else 'takes no value'}")
    if at is not None and kind not in TIMED:
        raise ValueError(f"{kind} cannot start later (@SECONDS); these can: {', '.join(TIMED)}")
    if kind in ("mtu", "narrow") and not (value.isdigit() and 1280 <= int(value) <= 65535):
        raise ValueError(f"{kind}={value} is not a number of bytes from 1280 (the minimum of IPv6) to 65535")
    if kind in ("address", "add-address"):
        try:
            ipaddress.ip_interface(value)
        except ValueError:
            raise ValueError(f"{value} is not an IP address") from None
    if kind == "wrong-route" and not re.fullmatch(r"node-\d{1,4}", value):
        raise ValueError(f"{value} is not a node; use node-0, node-1, …")
    if kind == "loss" and not (re.fullmatch(r"\d{1,3}(\.\d{1,4})?", value) and 0 < float(value) < 100):
        raise ValueError(
            f"loss={value} is not a percentage above 0 and below 100; use lossy to lose all packets"
        )
    if kind in ("rate", "rate-out"):
        try:
            rate = parsing.parse_rate(value)
        except ValueError as error:
            raise ValueError(f"{kind}={value} {error}") from None
        if not parsing.RATES[0] <= rate <= parsing.RATES[1]:
            lowest, highest = (parsing.format_rate(limit) for limit in parsing.RATES)
            raise ValueError(f"{kind}={value} is not between {lowest} and {highest}")
    seconds = float(at) if at is not None else None
    return Fault(int(match["node"]), match["interface"], kind, value, seconds, float(last) if last else None)
