"""Why test pods do not start yet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kubernetes_objects import pod, waiting
from torchnet.k8s.run.worker_set import worker
from torchnet.k8s.verify.pod_start import (
    find_rejected_token,
    has_clock_stopped,
    is_pulling,
    not_started_error,
    of_pod,
    rejected_token_error,
)

SANDBOX = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
    f'"{"a1" * 32}": plugin type="multus" name="multus-cni-network" failed (add): '
)


def event(reason: str, at: int = 0, message: str = "", uid: str = "uid-0") -> dict[str, Any]:
    return {
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-01-01T00:00:{at:02}Z",
        "involvedObject": {"kind": "Pod", "name": "verify-0", "uid": uid},
    }


@pytest.mark.parametrize(
    ("reasons", "pulling"),
    [
        ([], False),
        ([("Scheduled", 0)], False),
        ([("Scheduled", 0), ("Pulling", 1)], True),
        ([("Pulling", 1), ("Pulled", 7)], False),
        ([("Pulling", 1), ("Pulled", 1)], False),  # a small image, in the same second
        ([("Pulled", 1)], False),  # the node had it
        ([("Pulling", 1), ("Failed", 9), ("BackOff", 10)], False),
        ([("Pulling", 20), ("Failed", 9), ("BackOff", 10)], True),  # the next try
    ],
)
def test_whether_an_image_is_being_pulled(reasons: list[tuple[str, int]], pulling: bool) -> None:
    events = [event(reason, at) for reason, at in reasons]
    assert is_pulling(events) is pulling
    assert is_pulling(reversed(events)) is pulling, "the API server lists them by name"


def test_the_events_of_an_earlier_pod_of_this_name_do_not_count() -> None:
    assert of_pod([event("Pulling", uid="old"), event("Pulled")], "uid-0") == [event("Pulled")]


def test_the_clock_stands_while_a_queue_holds_the_pod_or_its_image_is_pulled() -> None:
    pulls = [event("Pulling")]
    gated = {"status": "False", "reason": "SchedulingGated"}
    assert has_clock_stopped(worker(pod(0, scheduled=gated)), [])
    assert has_clock_stopped(worker(pod(0, worker=waiting("ContainerCreating"))), pulls)
    assert not has_clock_stopped(worker(pod(0, worker=waiting("ContainerCreating"))), [])
    assert not has_clock_stopped(worker(pod(0, worker=waiting("ErrImagePull"))), pulls), "it fails"


@pytest.mark.parametrize(
    ("message", "rejected"),
    [
        (f"{SANDBOX}Multus: [ml/verify-0/uid-0]: error waiting for pod: Unauthorized", True),
        (f"{SANDBOX}Multus: [ml/v/u]: error setting the networks status: x: Unauthorized", True),
        (
            f'{SANDBOX}[ml/v/u:backend-network]: error adding container to network "backend-network": Unauthorized',
            False,
        ),
        (f"{SANDBOX}Multus: [ml/v/u]: error waiting for pod: connection refused", False),
    ],
)
def test_a_rejected_token_of_multus_is_told_from_that_of_a_plugin(message: str, rejected: bool) -> None:
    assert find_rejected_token([event("FailedCreatePodSandBox", message=message)]) is rejected
    assert not find_rejected_token([event("Warning", message=message)])


def test_the_command_renews_the_token_of_the_daemonset_that_is_there() -> None:
    error = rejected_token_error("node1", "-n networking daemonset/multus")
    assert "the API server rejects the token of Multus on node1 (Unauthorized)" in error.text
    assert error.fix == "kubectl rollout restart -n networking daemonset/multus"


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("ErrImagePull: x", "--image"),
        ("unscheduled: 2 nodes had untolerated taints", "--toleration"),
        ("FailedCreatePodSandBox: no such file", "kubectl get events -n ml"),
    ],
)
def test_each_reason_has_its_next_command(why: str, fix: str) -> None:
    error = not_started_error("verify-0", "running", 90, why, "ml")
    assert error.text == f"verify-0 is not running after 90 s: {why}"
    assert fix in error.fix
