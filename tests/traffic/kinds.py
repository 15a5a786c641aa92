"""One plan for each kind of flow: it goes over one network, and plain TCP over the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.traffic.plan import OUTSIDER, Flow, Plan

_MB = 1_000_000
# What differs from 4 MB of plain TCP in one connection.
_FLOWS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "answer": {"size": 1_000, "back": 4 * _MB},
    "port-29500": {"port": 29_500},
    "port-29400": {"port": 29_400},
    "burst": {"connections": 500, "size": _MB},
    "burst-reset": {"connections": 500, "size": _MB, "end": "reset"},
    "burst-exit": {"connections": 500, "size": _MB, "end": "exit"},
    "child": {"process": "child"},
    "shared": {"process": "shared"},
    "any": {"address": "any"},
    "link-local": {"address": "link-local"},
    "source": {"bind": "source"},
    "device": {"bind": "device"},
    "reset": {"end": "reset"},
    "half": {"end": "half", "back": _MB},
    "exit": {"end": "exit"},
    "reset-100kB": {"end": "reset", "size": 100_000},
    "slow": {"seconds": 1.5},
    "slow-reset": {"seconds": 1.5, "end": "reset"},
    "udp": {"protocol": "udp"},
    "udp-connected": {"protocol": "udp-connected"},
    "udp-fragments": {"protocol": "udp", "datagram": 30_000},
    "udp-child": {"protocol": "udp", "process": "child"},
    "udp-100kB": {"protocol": "udp", "size": 100_000},
    "udp-link-local": {"protocol": "udp", "address": "link-local"},
}


def _plan(kind: dict[str, Any], way: str, ipv4: bool = False) -> Plan:
    flow = replace(Flow(0, 1, way, 4 * _MB), **kind)
    return Plan(ipv4=ipv4, flows=(flow, Flow(1, 0, "eth0" if way == "net1" else "net1", 4 * _MB)))


KINDS = {f"{name}-{way}": _plan(kind, way) for name, kind in _FLOWS.items() for way in ("net1", "eth0")}
KINDS |= {f"mapped-{way}": _plan({"address": "mapped"}, way, ipv4=True) for way in ("net1", "eth0")}
KINDS |= {f"foreign-{way}": _plan({"bind": "foreign"}, way, ipv4=True) for way in ("net1", "eth0")}
KINDS |= {
    f"ipv4-{name}-{way}": _plan(_FLOWS[name], way, ipv4=True)
    for name in ("tcp", "any", "udp")
    for way in ("net1", "eth0")
}
_OTHERS = {
    "outsider": Flow(0, OUTSIDER, "eth0", 1_000, back=100 * _MB),
    "outsider-net1": Flow(0, OUTSIDER, "net1", 1_000, back=100 * _MB),
    "outsider-udp": Flow(1, OUTSIDER, "eth0", 4 * _MB, protocol="udp"),
    "dns": Flow(0, OUTSIDER, "eth0", 2_000, protocol="udp", port=53, datagram=60),
}
KINDS |= {
    name: Plan(flows=(flow, Flow(0, 1, "net1", 4 * _MB), Flow(1, 0, "eth0", _MB)))
    for name, flow in _OTHERS.items()
}
KINDS |= {
    f"within-{way}-{protocol}": Plan(
        nproc=2,
        flows=(
            Flow(0, 1, way, 4 * _MB, protocol=protocol),
            Flow(0, 2, "net1", 4 * _MB),
            Flow(2, 0, "eth0", _MB),
        ),
    )
    for way, protocol in (("lo", "tcp"), ("net1", "tcp"), ("eth0", "tcp"), ("lo", "udp"), ("lo", "unix"))
}
