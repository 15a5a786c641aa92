"""The messages between agents: each survives the wire, and whatever else arrives is refused as a whole."""

from __future__ import annotations

import copy
import json
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agents import made, spec, table, whole
from torchnet.agent import admission, messages
from torchnet.agent.events import Failure
from torchnet.agent.messages import (
    CoordinatorMessage,
    Heartbeat,
    InvalidMessageError,
    JoinRequest,
    WorkerMessage,
    decode_from_coordinator,
    decode_from_worker,
    decode_join_request,
    encode,
)
from torchnet.network.path_diagnosis import LinkType, PathView
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

FAILURE = Failure("script", "rank 1 failed", 7, rank=1, node="node-0", at=1e9, tail=["a", "b"])
ROW = table().rows[1]
FROM_WORKER: list[WorkerMessage] = [
    Heartbeat(
        1 << 40, frozen=True, progress=7, blocked="rank 1 waits for its reader", trickle=9, unseen="NVLink"
    ),
    messages.PreflightResult(3, ("a", "b"), 4),
    messages.PreflightResult(3, ("a",), 0, PathView("n", (LinkType("ipvlan", "l3", 64),), ((1, 0),), ())),
    messages.WorkerFailed(FAILURE),
    messages.Kill(),
    messages.RanksEnded(1),
    messages.Interrupted(FAILURE),
    messages.ProcessesEnded(1),
    messages.ProcessesStopped(),
    messages.ProcessesStopped(ROW),
    messages.Stacks({"0": "", "17": "File …"}, ("node-0: …",)),
    messages.WorkerReceipt(made(0, {})),
]
FROM_COORDINATOR: list[CoordinatorMessage] = [
    Heartbeat(),
    messages.Rejection(FAILURE),
    messages.Table(1, 2, PeerTable((ROW,))),
    messages.Start(29501),
    messages.Stop(FAILURE, restart=True),
    messages.Stop(FAILURE, at_once=True),
    messages.StacksRequest(),
    messages.EndLeftovers(),
    messages.ReceiptRequest(),
    messages.Over(255),
]
JOIN = JoinRequest(ROW, "run-1", 2, "3")
CASES = [
    *((message, decode_from_worker) for message in FROM_WORKER),
    *((message, decode_from_coordinator) for message in FROM_COORDINATOR),
    (JOIN, decode_join_request),
]


def on_the_wire(message: messages.Message) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(encode(message)))
    return value


def test_every_type_is_among_the_examples() -> None:
    assert {type(message) for message in FROM_WORKER} == set(get_args(WorkerMessage))
    assert {type(message) for message in FROM_COORDINATOR} == set(get_args(CoordinatorMessage))
    declared = {str(f.type) for cls in messages.TYPES.values() for f in fields(cls)}
    assert declared == messages.READERS.keys()


@pytest.mark.parametrize(("message", "decode"), CASES)
def test_a_message_survives_the_wire_with_fields_of_a_newer_version(message: Any, decode: Any) -> None:
    assert decode(on_the_wire(message)) == message
    assert decode({**on_the_wire(message), "invented": [1]}) == message


def test_a_type_of_a_newer_version_is_ignored_but_not_one_of_the_wrong_direction() -> None:
    for decode in (decode_from_worker, decode_from_coordinator):
        assert decode({"type": "Invented", "x": 1}) is None
    for message, decode in (
        (messages.Over(0), decode_from_worker),
        (FROM_WORKER[1], decode_from_coordinator),
    ):
        with pytest.raises(InvalidMessageError, match=type(message).__name__):
            decode(on_the_wire(message))
    with pytest.raises(InvalidMessageError):
        decode_join_request({"type": "Invented"})


HOSTILE = [
    *(None, True, -1, 0, 1.5, float("inf"), float("nan"), 1 << 63, 70_000, "", "x", "\ud800", [], [1], {}),
    *(["a"] * 10_001, {"x": 1}, {"0": 1}, {"-1": "a"}, "x" * ((1 << 20) + 1)),
    {"kind": "script", "text": "t", "code": 0},
    {"kind": "odd", "text": "t", "code": 1},
    {"kind": "script", "text": 5, "code": 1},
]


def outcome(decode: Any, data: dict[str, Any]) -> Any:
    try:
        return decode(data)
    except InvalidMessageError as error:
        return str(error)


@pytest.mark.parametrize(("message", "decode"), CASES)
def test_a_hostile_field_is_refused_by_name_or_has_the_declared_type(message: Any, decode: Any) -> None:
    good = on_the_wire(message)
    refused = 0
    for f in fields(message):
        for value in HOSTILE:
            got = outcome(decode, {**good, f.name: value})
            if isinstance(got, str):
                refused += 1
                assert f".{f.name} " in got
                assert len(got) < 600
            else:
                assert type(getattr(got, f.name)) in (type(getattr(message, f.name)), type(value))
                assert type(value) is not float
        absent = outcome(decode, {name: value for name, value in good.items() if name != f.name})
        assert isinstance(absent, str) == (f.default is MISSING)
    assert refused >= 15 * len(fields(message))
    for value in (None, 5, [], {}, True):
        assert isinstance(outcome(decode, {**good, "type": value}), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_receipt_that_is_accepted_can_be_assembled(data: st.DataObject) -> None:
    """Rank 0 computes with it: a wrong one must not end rank 0's agent."""
    receipt = copy.deepcopy(made(0, {}))
    path = data.draw(st.sampled_from(sorted(receipt)))
    receipt[path] = data.draw(JSON)
    try:
        got = decode_from_worker({"type": "WorkerReceipt", "receipt": receipt})
    except InvalidMessageError:
        return
    assert isinstance(got, messages.WorkerReceipt)
    whole(got.receipt, made(1, {}))


def test_a_join_request_is_admitted_or_rejected_with_the_reason() -> None:
    own = spec(0, start="2")
    request = admission.join_request(own, ROW)

    def rejection(**fields: Any) -> str:
        return admission.rejection(request, spec(0, **{"start": "2", **fields}), None, late=False)

    assert rejection() == ""
    reasons = [rejection(**fields) for fields in ({"start": "3"}, {"nnodes": 5})]
    assert ["3" in reasons[0], "--nnodes 5" in reasons[1]] == [True] * 2
    assert admission.rejection(request, own, None, late=True)
    assert "node-1" in admission.rejection(request, own, PeerRow(1, "node-1", "other", ROW.rails), late=False)
    for address in ("fe80::1", "::1", "127.0.0.1", "ff02::1", "0.0.0.0"):
        other = admission.join_request(own, PeerRow(1, "node-1", "u1", (PeerRail("net1", address, 9000),)))
        assert address in admission.rejection(other, own, None, late=False, claimed=True)
        assert admission.rejection(other, own, None, late=False) == ""  # such as host:lo
