"""Faults as they are written, and what they change about the nodes."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.config.fault_syntax import KINDS, TIMED, VALUED, Fault, parse
from torchnet.config.parsing import format_rate
from torchnet.config.resolution import resolve
from torchnet.config.validation_errors import SpecError
from torchnet.local import topology
from torchnet.local.faults import InjectedFaults

VALUES = {
    "mtu": st.integers(1280, 65535).map(str),
    "narrow": st.integers(1280, 65535).map(str),
    "address": st.sampled_from(["10.0.0.1", "fd00::1/64", "10.1.0.0/8"]),
    "add-address": st.sampled_from(["10.0.0.1", "fd00::1/64"]),
    "wrong-route": st.integers(0, 9999).map(lambda n: f"node-{n}"),
    "loss": st.integers(1, 999_999).map(lambda n: f"{n / 10_000:.4f}"),
    "rate": st.integers(10**6, 30 * 10**9).map(format_rate),
    "rate-out": st.sampled_from(["100mbit", "2.5gbit", "1mibit"]),
}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(sorted(KINDS)))
    value = draw(VALUES[kind]) if kind in VALUED else ""
    seconds = st.integers(0, 1000).map(lambda n: n / 4)
    at = draw(st.none() | seconds) if kind in TIMED else None
    last = draw(st.none() | seconds) if at is not None else None
    interface = draw(st.sampled_from(["net1", "net8"]))
    return Fault(draw(st.integers(0, 9999)), interface, kind, value, at, last)


@settings(deadline=None)
@given(faults())
def test_a_fault_is_read_as_it_was_written(fault: Fault) -> None:
    text = f"node-{fault.node}:{fault.interface}:{fault.kind}" + (f"={fault.value}" if fault.value else "")
    text += f"@{fault.at}" if fault.at is not None else ""
    text += f"+{fault.last}" if fault.last is not None else ""
    assert parse(text) == fault


WRONG = {
    "": "is not NODE:INTERFACE:KIND",
    "node-1:net1": "is not NODE:INTERFACE:KIND",
    "node-1:eth0:down": "is not NODE:INTERFACE:KIND",
    "node-1:net9:down": "is not NODE:INTERFACE:KIND",
    "node-12345:net1:down": "is not NODE:INTERFACE:KIND",
    "node-1:net1:down@": "is not NODE:INTERFACE:KIND",
    "node-1:net1:down@-1": "is not NODE:INTERFACE:KIND",
    "node-1:net1:down+3": "unknown kind of fault|is not NODE",
    "node-1:net1:explode": "no-interface, no-address",
    "node-1:net1:mtu": "mtu needs a value: =BYTES",
    "node-1:net1:down=3": "down takes no value",
    "node-1:net1:mtu=9": "mtu=9 .*1280",
    "node-1:net1:mtu=x": "mtu=x",
    "node-1:net1:address=fe": "fe is not an IP address",
    "node-1:net1:wrong-route=eth0": "eth0 is not a node",
    "node-1:net1:loss": "loss needs a value: =PERCENT",
    "node-1:net1:loss=0": "loss=0 is not a percentage",
    "node-1:net1:loss=0.0": "loss=0.0 is not a percentage",
    "node-1:net1:loss=100": "not a percentage .*lossy",
    "node-1:net1:loss=1e-3": "loss=1e-3",
    "node-1:net1:rate": "rate needs a value: =RATE",
    "node-1:net1:rate=fast": "rate=fast is not a rate",
    "node-1:net1:rate=100mbps": 'rate=100mbps is ambiguous: tc reads "bps" as bytes',
    "node-1:net1:rate-out=1kbit": "rate-out=1kbit .*1mbit and 30gbit",
    "node-1:net1:rate=40gbit": "rate=40gbit .*1mbit and 30gbit",
    "node-1:net1:rate=100mbit@3": "rate cannot start later",
    "node-1:net1:narrow=1500@3": "narrow cannot .*no-address, down",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_fault_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=WRONG[text]):
        parse(text)


@settings(deadline=None)
@given(st.text(alphabet=string.printable) | st.text())
def test_any_other_text_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


def test_faults_that_the_job_has_no_place_for_are_refused_all_at_once() -> None:
    resolve({"script": "train.py", "network.faults": ["node-1:net2:down"], "network.rails": 2}, {})
    wrong = {
        "node-2:net1:down": "node-0 to node-1",
        "node-1:net3:down": "no net3",
        "node-1:net1:wrong-route=node-5": "no node-5",
        "node-1:net1:mtu=9500": "9000",
    }
    with pytest.raises(SpecError) as caught:
        resolve({"script": "train.py", "network.faults": list(wrong), "network.rails": 2}, {})
    for text, said in wrong.items():
        assert f"{text}: " in str(caught.value)
        assert said in str(caught.value)


def test_faults_of_addresses_change_the_nodes_and_their_status() -> None:
    injected = InjectedFaults(
        [parse("node-1:net1:address=10.7.0.2"), parse("node-0:net1:add-address=fd00::9/80")]
    )
    first, second = injected.with_addresses([topology.node(rank, 1) for rank in range(2)])
    assert (second.backend[0].address, second.backend[0].prefix) == ("10.7.0.2", 24)
    assert '"10.7.0.2"' in topology.network_status_annotation(second)
    assert injected.addresses(first, first.backend[0]) == [("fcbb:0:800:ffff::1", 64), ("fd00::9", 80)]
    assert "fd00::9" not in topology.network_status_annotation(first)
    timed = InjectedFaults([parse("node-0:net1:down@5+2"), parse("node-1:net1:lossy@1")]).timed()
    assert [(at, fault.kind, comes) for at, fault, comes in timed] == [
        (1, "lossy", True),
        (5, "down", True),
        (7, "down", False),
    ]
