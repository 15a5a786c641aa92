"""The termination message: always JSON, always short enough, early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agents import spec
from torchnet.agent.events import Failure
from torchnet.agent.termination_log import LIMIT, TerminationLog

RECEIPT: dict[str, Any] = {
    "node": "n",
    "node_rank": 0,
    "interfaces": {f"net{n}": {"role": "backend", "sent_bytes": 1, "received_bytes": 2} for n in range(8)},
    "peer_bytes": 5,
    "other_bytes": 0,
    "peers": [{"node": f"run-{n}", "interface": "net1", "sent_bytes": 1, "received_bytes": 1} for n in range(999)],
    "rdma_bytes": {},
    "proof": "measured",
    "codes": {str(n): n % 2 for n in range(64)},
    "flaps": [],
    "findings": [],
}  # fmt: skip
TEXT = st.text(max_size=5000) | st.sampled_from(["\0" * 4000, "é" * 3000, "😀" * 2000, '"\\' * 3000])


@settings(max_examples=80, deadline=None)
@given(text=TEXT, reason=TEXT, findings=st.lists(TEXT, max_size=6), node=st.text(max_size=300))
def test_a_message_always_fits_and_is_json(text: str, reason: str, findings: list[str], node: str) -> None:
    made = TerminationLog(spec(0), "")
    made.send(Failure("script", text, 42, rank=3, node=node, at=1.5, tail=["x" * 9000]).event())
    made.send({"event": "worker_receipt", "receipt": {**RECEIPT, "findings": findings}})
    job = {"exit_code": 42, "reason": reason, "backend_share": 0.5, "proof": "measured", "ranks": [1] * 9999}
    job |= {"backend_share_high": 0.6, "min_share": None}
    made.send({"event": "receipt", "receipt": job})
    made.send({"event": "end", "code": 42})
    data = made.text().encode()
    assert len(data) <= LIMIT
    value = json.loads(data)
    assert list(value) == [
        "torchnet",
        "node",
        "node_rank",
        "phase",
        "started",
        "code",
        "failure",
        "receipt",
        "job",
    ]
    assert (value["code"], value["failure"]["code"], value["failure"]["rank"]) == (42, 42, 3)
    assert list(value["failure"]) == ["kind", "text", "code", "rank", "node", "at"]
    assert text.startswith(value["failure"]["text"])
    assert value["receipt"] is None or "peers" not in value["receipt"]


def test_the_message_is_there_as_soon_as_something_fails(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    made = TerminationLog(spec(0, phase="work"), str(path))
    made.send({"event": "phase", "phase": "join", "text": "1/2 joined", "node": 0})
    assert path.read_bytes() == b""
    made.send(Failure("interrupted", "stopped by SIGTERM " + "x" * 500, 143).event() | {"event": "stopping"})
    early = json.loads(path.read_bytes())
    assert (early["phase"], early["code"], early["failure"]["kind"]) == ("work", 143, "interrupted")
    made.send(Failure("lost", "lost run-1", 70).event())
    made.send({"event": "end", "code": 70})
    late = json.loads(path.read_bytes())
    assert path.read_bytes().endswith(b"}")  # the shorter one leaves nothing of the longer
    assert (late["code"], late["failure"]["text"]) == (70, "lost run-1")


def test_it_tells_whether_the_script_had_started(tmp_path: Path) -> None:
    """What is not known is not written: only an end is."""
    path = tmp_path / "message"
    for begins in (False, True):
        made = TerminationLog(spec(0), str(path))
        if begins:
            made.send({"event": "started", "attempt": 0})
        assert not path.exists()
        made.send({"event": "end", "code": 0})
        assert json.loads(path.read_text())["started"] is begins
        path.unlink()


def test_a_failure_that_a_restart_forgives_is_not_kept(tmp_path: Path) -> None:
    made = TerminationLog(spec(0), str(tmp_path / "log"))
    made.send(Failure("script", "rank 1 exited with code 7", 7, rank=1).event() | {"restart": True})
    made.send({"event": "end", "code": 0})
    value = json.loads((tmp_path / "log").read_bytes())
    assert (value["code"], value["failure"]) == (0, None)


def test_no_place_for_the_message_is_no_failure(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "none" / "log"), "/dev/full"):
        TerminationLog(spec(0), path).send({"event": "end", "code": 0})
    assert list(tmp_path.iterdir()) == []
