"""What benchmarks.scale makes of a recording of two real workers, and how it reads the API server's audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.scale import recording, traffic
from torchnet.constants import INDEX_LABEL

LINES = ["t torchnet: join: 2/2 joined", "t [0] step 0", "t [0] step 1", "t torchnet: receipt: {}"]


def pod(message: str) -> dict[str, Any]:
    terminated = {"exitCode": 0, "finishedAt": "2026-01-02T03:04:05Z", "message": message}
    return {
        "metadata": {"name": "scale-1-x7k2p", "labels": {INDEX_LABEL: "1"}},
        "status": {
            "podIP": "10.244.2.7",
            "hostIP": "172.31.0.12",
            "containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}],
        },
    }


def test_a_status_becomes_a_template_for_each_rank() -> None:
    message = '{"torchnet":1,"node":"scale-1","node_rank":1,"code":0,"receipt":{"codes":{"1":0}}}'
    made = recording.template(pod(message), pod(message)["status"])
    for name, value in {
        "{{ $rank }}": "712",
        "{{ Now }}": "2027-01-01T00:00:00Z",
        "{{ $address }}": "10.200.2.9",
        "{{ NodeIP }}": "172.31.0.1",
    }.items():
        made = made.replace(name, value)
    found = json.loads(made)
    terminated = found["containerStatuses"][0]["state"]["terminated"]
    assert (found["podIP"], found["hostIP"]) == ("10.200.2.9", "172.31.0.1")
    assert terminated["finishedAt"] == "2027-01-01T00:00:00Z"
    said = json.loads(terminated["message"])
    assert (said["node"], said["node_rank"], said["receipt"]["codes"]) == ("scale-712", 712, {"712": 0})


def test_the_steps_of_a_log_are_apart_from_what_comes_before_and_after() -> None:
    assert recording.split(LINES) == (LINES[:1], LINES[1:3], LINES[3:])


def test_lines_are_appended_with_stamps_that_grow(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    recording.append(path, LINES)
    recording.append(path, LINES[1:2])
    rows = [line.split(" ", 3) for line in path.read_text().splitlines()]
    stamps = [row[0] for row in rows]
    assert stamps == sorted(stamps)
    assert [row[1:] for row in rows[1:2]] == [["stdout", "F", "[0] step 0"]]


def test_a_line_of_the_audit_log_is_a_request() -> None:
    event = {
        "verb": "watch",
        "user": {"username": traffic.USER},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.250000Z",
        "requestURI": "/api/v1/namespaces/ml/pods?watch=true",
        "objectRef": {"resource": "pods", "namespace": "ml"},
    }
    found = traffic.parse(json.dumps(event))
    assert (found.user, found.what, found.name) == (traffic.USER, "watch pods", "")
    assert found.at == 1767323045.25
    log = traffic.AuditLog([found])
    assert log.of(traffic.USER, since=found.at, until=found.at + 1) == [found]
    assert (
        log.of(traffic.USER, since=found.at + 1) == log.of("others") == log.of(traffic.USER, "get pods") == []
    )
    plain = {**event, "objectRef": None, "verb": "get", "requestURI": "/version?x"}
    assert traffic.parse(json.dumps(plain)).what == "get /version"
