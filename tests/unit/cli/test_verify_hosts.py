"""What ``torchnet verify`` says about hosts, by how far the job came."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.cli.verify_hosts import HostChecks
from torchnet.k8s.verify.check import Check

JOIN = {"event": "phase", "phase": "join", "text": "2/2 joined"}
ALONE = {**JOIN, "text": "1/2 joined"}
PATHS = {"event": "phase", "phase": "preflight", "text": "2/2 paths"}


def failure(kind: str, text: str = "host-b did not come\n  fix: start it") -> dict[str, Any]:
    return {"event": "failure", "kind": kind, "text": text}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([JOIN, PATHS], [("hosts", True, True), ("paths", True, True)]),
        ([ALONE, failure("timeout")], [("hosts", False, True)]),
        ([failure("network")], [("hosts", False, True)]),  # for example rails that differ
        ([ALONE, failure("interrupted", "stopped by SIGINT")], [("hosts", True, False)]),
        ([JOIN, failure("network")], [("hosts", True, True), ("paths", False, True)]),
        ([JOIN, failure("interrupted")], [("hosts", True, True), ("paths", True, False)]),
        (
            [JOIN, PATHS, failure("lost")],
            [("hosts", True, True), ("paths", True, True), ("start", False, True)],
        ),
    ],
)
def test_a_check_is_good_only_if_it_was_made(
    events: list[dict[str, Any]], found: list[tuple[str, bool, bool]]
) -> None:
    shown: list[Check] = []
    checks = HostChecks(shown.append)
    for event in events:
        # On node 0, which alone has phases, the check says it.
        on_node_0 = events[0]["event"] == "phase"
        assert checks(event) == (event["event"] == "phase" or on_node_0)
    for event in [{"event": "receipt", "receipt": {"nodes": [{"node": "host-a"}], "exit_code": 1}}]:
        checks(event)
    assert [(one.name, one.good, one.known) for one in shown] == found
    if not shown[-1].good:
        assert (shown[-1].evidence, shown[-1].fix) == ("host-b did not come", "start it")


@pytest.mark.parametrize(
    ("kind", "text", "evidence", "fix"),
    [
        ("timeout", "host-b did not come", "host-b did not come", "start the same line on each host"),
        ("network", "no route; fix: ip route", "no route", "ip route"),
        ("network", "1; fix: a\n2; fix: b", "1; fix: a\n2; fix: b", ""),
    ],
)
def test_what_to_do_is_apart(kind: str, text: str, evidence: str, fix: str) -> None:
    shown: list[Check] = []
    checks = HostChecks(shown.append)
    for event in (ALONE, failure(kind, text), {"event": "receipt", "receipt": {"nodes": [], "exit_code": 1}}):
        checks(event)
    assert (shown[0].evidence, shown[0].fix.partition(";")[0]) == (evidence, fix)
