"""One exit code and one receipt, from rank 0's log or from the workers' last words."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kubernetes_objects import (
    RUN,
    ended,
    facts,
    failure,
    message,
    pod,
    running,
    terminated,
    waiting,
    workers,
)
from torchnet.agent.events import Failure, Kind
from torchnet.console.files import write_json
from torchnet.k8s.run import termination_message as messages
from torchnet.k8s.run.log_parser import event
from torchnet.k8s.run.outcome import first_failure, settle
from torchnet.k8s.run.worker_set import WorkerStatus
from torchnet.receipt.receipt_model import Receipt

ACCOUNT: dict[str, Any] = {
    "interfaces": {"net1": {"role": "backend", "sent_bytes": 100, "received_bytes": 200}},
    "peer_bytes": 250,
    "other_bytes": 0,
    "proof": "measured",
    "codes": {},
    "flaps": [],
    "findings": [],
}
JOB = {"exit_code": 0, "reason": "done", "backend_share": 0.995, "proof": "measured"}


def gang_of(codes: list[int], **more: Any) -> dict[int, WorkerStatus]:
    """Four workers with these codes; rank 0 has a word on the job."""
    code = max(codes)
    why = failure(code=code) if code else None
    job = JOB | ({"exit_code": code, "reason": why["text"]} if why else {})
    return workers(
        *(
            ended(rank, one, message(rank, one, failure=why, receipt=ACCOUNT, job=job if rank == 0 else None))
            for rank, one in enumerate(codes)
        )
    )


def test_a_clean_end_without_the_log_is_a_whole_receipt() -> None:
    made = Receipt.model_validate(settle(facts(), gang_of([0, 0, 0, 0])))
    assert (made.exit_code, made.reason, made.backend_share, made.proof) == (0, "done", 0.995, "measured")
    assert [node.node for node in made.nodes] == [f"{RUN}-{rank}" for rank in range(4)]
    assert made.nodes[2].interfaces["net1"].received_bytes == 200
    assert (made.started, made.duration_s) == ("2026-01-01T00:00:05Z", 20.0)


def test_the_log_of_a_run_with_fixed_addresses_is_the_receipt() -> None:
    run = replace(facts(), network="static")
    assembled = settle(run, gang_of([0, 0, 0, 0]))
    assert (assembled["network"], len(assembled["findings"])) == ("static", 1)
    logged = assembled | {"backend_share": 0.5, "findings": []}
    made = settle(run, gang_of([0, 0, 0, 0]), logged)
    assert (made["network"], made["backend_share"], made["findings"]) == ("static", 0.5, [])


def test_the_first_failing_ranks_code_is_the_jobs_also_without_rank_0() -> None:
    found = gang_of([42, 42, 42, 42])
    assert settle(facts(), found)["exit_code"] == 42
    del found[0]
    made = settle(facts(), found)
    assert (made["exit_code"], made["failure"]["rank"]) == (42, 3)
    assert made["backend_share"] is None
    assert made["proof"] == "unknown"


def test_the_logs_receipt_goes_before_last_words_and_is_completed_by_them() -> None:
    logged = settle(facts(), gang_of([0, 0, 0, 0])) | {"backend_share": 0.5, "findings": []}
    logged["nodes"] = logged["nodes"][:2]
    made = settle(facts(), gang_of([0, 0, 0, 0]), logged)
    assert made["backend_share"] == 0.5
    assert [node["node_rank"] for node in made["nodes"]] == [0, 1, 2, 3]


def test_a_jobsets_starts_are_counted_where_the_agents_know_of_their_own_alone() -> None:
    logged = settle(facts(), gang_of([0, 0, 0, 0]))
    assert settle(facts(jobset=True), gang_of([0, 0, 0, 0]), logged, restarts=2)["restarts"] == 2
    assert settle(facts(), gang_of([0, 0, 0, 0]), logged | {"restarts": 1})["restarts"] == 1
    both = settle(facts(jobset=True), gang_of([0, 0, 0, 0]), logged | {"restarts": 1}, restarts=2)
    assert both["restarts"] == 3


@pytest.mark.parametrize(
    "logged", [None, {}, [], "x", {"schema": "torchnet.receipt/1"}, {"run_id": "of-another"}]
)
def test_what_is_no_receipt_of_this_run_is_not_taken(logged: object) -> None:
    assert settle(facts(), gang_of([0, 0, 0, 0]), logged)["backend_share"] == 0.995


def test_another_runs_receipt_in_the_log_is_not_taken() -> None:
    other = settle(facts(), gang_of([0, 0, 0, 0])) | {"run_id": "another", "exit_code": 9}
    assert settle(facts(), gang_of([0, 0, 0, 0]), other)["exit_code"] == 0


def test_an_agent_that_was_killed_is_a_lost_worker() -> None:
    killed = pod(1, phase="Failed", worker=terminated(137, None, "OOMKilled"))
    found = workers(ended(0, 0, message(0, job=JOB)), killed, ended(2), ended(3))
    made = settle(facts(), found)
    assert made["exit_code"] == 70
    assert "lost train-1a2b3c-1 (node rank 1 on node1)" in made["reason"]
    assert "OOMKilled" in made["reason"]


def test_a_cause_goes_before_those_that_were_only_told_to_stop() -> None:
    stopped = failure("interrupted", 143, at=1.0, text="stopped by SIGTERM")
    found = workers(
        ended(0, 143, message(0, 143, failure=stopped)), ended(1, 42, message(1, 42, failure=failure(at=5.0)))
    )
    first = first_failure(facts(), found)
    assert first is not None
    assert (first.kind, first.code) == ("script", 42)


def test_the_launchers_own_word_goes_before_a_sigterm_that_the_agents_got() -> None:
    stopped = failure("interrupted", 143, text="stopped by SIGTERM")
    found = workers(*(ended(rank, 143, message(rank, 143, failure=stopped)) for rank in range(4)))
    mine = Failure("interrupted", "stopped by SIGINT", 130, at=2.0)
    made = settle(facts(), found, failure=mine)
    assert (made["exit_code"], made["reason"]) == (130, "stopped by SIGINT")
    lost = Failure("lost", "lost a worker", 70, at=2.0)
    agreed = settle(facts(), gang_of([42, 42, 42, 42]), failure=lost)
    assert agreed["exit_code"] == 42  # they agreed on something else, which was first


def test_workers_of_whom_nothing_is_known_are_no_success() -> None:
    assert settle(facts(), {}, now=1_700_000_100.0)["exit_code"] == 70
    assert (
        settle(facts(), workers(ended(0), ended(1), pod(2, worker=running(), phase="Running")))["exit_code"]
        == 70
    )


ODD = [10**400, 2**64, float("nan"), float("inf"), float("-inf")]
NUMBERS = st.integers() | st.floats() | st.sampled_from(ODD)
KEYS = (
    *("torchnet", "code", "failure", "receipt", "job", "node_rank", "kind", "text", "rank", "node", "at"),
    *("exit_code", "reason", "backend_share", "proof", "codes", "interfaces", "peer_bytes", "more"),
)
THINGS = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
)
CODES = st.integers(0, 255)


def like(body: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """What an agent writes, at times with a part replaced by something that may be anything."""
    whole = st.fixed_dictionaries({key: st.just(value) for key, value in body.items()} | fields)
    other = st.dictionaries(st.sampled_from(sorted(body)), THINGS, max_size=1)
    return st.builds(lambda one, more: one | more, whole, other)


FAILURES = like(failure(), kind=st.sampled_from(get_args(Kind)), code=CODES, at=NUMBERS, rank=NUMBERS)
JOBS = like(JOB, exit_code=CODES, backend_share=NUMBERS, proof=st.sampled_from(["measured", "inferred"]))
RECEIPTS = like(ACCOUNT, peer_bytes=NUMBERS, more=THINGS)
MESSAGES = st.builds(
    lambda code, why, receipt, job: message(code=code, failure=why, receipt=receipt, job=job),
    *(CODES, st.none() | FAILURES, st.none() | RECEIPTS, st.none() | JOBS),
)


@given(
    st.lists(
        st.text(max_size=200) | st.builds(json.dumps, THINGS) | MESSAGES,
        min_size=4,
        max_size=4,
    ),
    st.lists(st.integers(0, 255), min_size=4, max_size=4),
)
def test_any_last_words_give_a_receipt_that_can_be_read(texts: list[str], codes: list[int]) -> None:
    found = workers(*(ended(rank, codes[rank], texts[rank]) for rank in range(4)))
    receipt = settle(facts(), found, now=1_700_000_100.0)
    assert write_json("-", receipt, stdout=io.StringIO()) is None
    made = Receipt.model_validate(receipt)
    first = messages.read(texts[0])
    agreed = first is not None and first.job is not None and first.job["exit_code"] == 0
    if made.exit_code == 0 and not agreed:
        assert not any(codes), "a worker failed, and the job is called a success"


def test_a_worker_that_was_killed_behind_its_last_word_has_failed() -> None:
    made = settle(facts(2), workers(ended(0), ended(1, 137, message(1, 0)), nnodes=2))
    assert (made["exit_code"], made["reason"]) == (137, f"{RUN}-1 exited with code 137")


def taken(rank: int, *, disrupted: bool) -> dict[str, Any]:
    """A pod that was told to stop, and is being deleted."""
    conditions = [{"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}]
    text = message(rank, 143, failure=failure("interrupted", 143))
    one = ended(rank, 143, text, conditions=conditions if disrupted else [])
    one["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    return one


def test_of_pods_that_are_all_deleted_the_one_that_the_cluster_took_away_is_lost() -> None:
    """The rule FailJob of a JobSet's Job deletes the others."""
    found = first_failure(facts(2), workers(taken(0, disrupted=False), taken(1, disrupted=True), nnodes=2))
    assert found is not None
    assert (found.kind, found.code) == ("lost", 70)
    assert f"lost {RUN}-1" in found.text
    assert "Eviction API" in found.text
    for disrupted in (False, True):
        both = [taken(rank, disrupted=disrupted) for rank in range(2)]
        all_of_them = first_failure(facts(2), workers(*both, nnodes=2))
        assert all_of_them is not None
        assert all_of_them.kind == "interrupted"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        message(failure=failure(at=float("nan"))),
        message(failure=failure(at=10**400)),
        message(failure=failure(code=10**400)),
        message(failure=failure()).replace("1000.0", "1e999"),
        message(job=JOB | {"backend_share": 10**400}),
        message(receipt=ACCOUNT | {"more": float("inf")}),
        message(receipt=ACCOUNT | {"peer_bytes": 10**400}),
        message(receipt=ACCOUNT | {"more": "?"}).replace('"?"', nested(300)),
    ],
)
def test_hostile_last_words_by_name(text: str) -> None:
    receipt = settle(facts(1), workers(ended(0, 1, text), nnodes=1), now=1_700_000_100.0)
    shown = io.StringIO()
    assert write_json("-", receipt, stdout=shown) is None
    # Every number can be counted with.
    json.loads(shown.getvalue(), parse_int=lambda digits: float(int(digits)))


def test_a_hostile_receipt_in_the_log_by_name() -> None:
    whole = settle(facts(1), workers(ended(0), nnodes=1))
    for more in ("NaN", "1e999", "1" * 400, nested(300)):
        line = "torchnet: receipt: " + json.dumps(whole | {"more": "?"}).replace('"?"', more)
        logged = event(line, 0, "r-0").get("receipt")
        receipt = settle(facts(1), workers(ended(0), nnodes=1), logged)
        assert write_json("-", receipt, stdout=io.StringIO()) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Traceback …",
        "[]",
        '{"torchnet": 2}',
        '{"torchnet": 1}',
        message(code=-1),
        message() + " " * 5000,
    ],
)
def test_what_no_agent_wrote_is_no_message(text: str | None) -> None:
    assert messages.read(text) is None


def test_a_message_is_read_whole() -> None:
    found = messages.read(message(3, 42, failure=failure(), job=JOB))
    assert found is not None
    assert found.failure is not None
    assert found.job == JOB
    assert (found.code, found.failure.rank, found.failure.kind) == (42, 3, "script")


def test_a_lost_worker_whose_pod_was_replaced_is_the_cause_of_the_stop() -> None:
    """The agents that the launcher stopped because of it say SIGTERM; of the lost worker only the launcher knows."""
    stopped = failure("interrupted", 143)
    first = message(0, 143, failure=stopped, receipt=ACCOUNT, job=JOB | {"exit_code": 143, "reason": "x"})
    found = workers(ended(0, 143, first), pod(1, worker=waiting("ContainerCreating")), nnodes=2)
    assert settle(facts(2), found)["exit_code"] == 143
    assert settle(facts(2), found, failure=Failure("lost", "lost it", 70, at=0.0))["exit_code"] == 70
    script = ended(0, 3, message(0, 3, failure=failure(code=3), receipt=ACCOUNT, job=JOB | {"exit_code": 3}))
    assert settle(facts(2), workers(script, nnodes=2), failure=Failure("lost", "x", 70))["exit_code"] == 3


def test_a_pod_that_was_taken_away_is_lost_unless_all_were() -> None:
    stopped = failure("interrupted", 143, text="stopped by SIGTERM", node=None)
    pods = [ended(rank, 143, message(rank, 143, failure=stopped)) for rank in range(4)]
    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:20Z"
    made = settle(facts(), workers(*pods))
    assert made["exit_code"] == 70
    assert made["reason"] == f"lost {RUN}-1 (node rank 1 on node1): its pod was deleted"
    # Later, when the pod itself is no more.
    assert settle(facts(), workers(pods[0], *pods[2:]))["exit_code"] == 70
    for one in pods:
        one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:20Z"
    assert settle(facts(), workers(*pods))["exit_code"] == 143


def test_an_eviction_is_told_in_the_clusters_words() -> None:
    stopped = failure("interrupted", 143, text="stopped by SIGTERM", node=None)
    pods = [ended(rank, 143, message(rank, 143, failure=stopped)) for rank in range(2)]
    said = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    pods[1]["status"]["conditions"].append(said)
    assert "Eviction API: evicting" in settle(facts(2), workers(*pods, nnodes=2))["reason"]


DISK = {
    'Usage of EmptyDir volume "work" exceeds the limit "64Mi". ': True,
    'Container worker exceeded its local ephemeral storage limit "64Mi". ': True,
    "Pod ephemeral local storage usage exceeds the total limit of containers 64Mi. ": True,
    'Usage of EmptyDir volume "emptydir-tmp" exceeds the limit "1Gi". ': False,
}


@pytest.mark.parametrize("said", DISK)
def test_a_worker_that_was_evicted_for_its_disk_is_told_so(said: str) -> None:
    """It is no disruption to the cluster; the agent knows of a SIGTERM alone."""
    stopped = failure("interrupted", 143, text="stopped by SIGTERM", node=None)
    pods = [ended(rank, 143, message(rank, 143, failure=stopped)) for rank in range(2)]
    pods[1]["status"] |= {"reason": "Evicted", "message": said}
    reason = settle(facts(2), workers(*pods, nnodes=2))["reason"]
    fix = "; --ephemeral-storage sets the limit" if DISK[said] else ""
    assert reason == f"lost {RUN}-1 (node rank 1 on node1): its pod was evicted: {said.strip()}{fix}"
    # Its Job fails then, and deletes the others.
    pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:20Z"
    assert settle(facts(2), workers(*pods, nnodes=2))["reason"] == reason
    # Nor does it matter what its containers leave.
    for state in ({"terminated": {"exitCode": 137}}, {}):
        pods[1]["status"]["containerStatuses"] = [{"name": "worker", "state": state}]
        assert (
            f"its pod was evicted: {said.strip()}{fix}"
            in settle(facts(2), workers(*pods, nnodes=2))["reason"]
        )


def test_rank_0_that_waited_in_vain_for_a_worker_that_had_failed_is_not_the_cause() -> None:
    """Where no launcher stops the others: rank 0 only knows that somebody did not join."""
    early = failure("network", 4, at=5.0, text="train-1a2b3c-1: net1: no such interface")
    late = failure("timeout", 124, at=50.0, text="1/2 workers joined within 45 s; missing: node rank 1")

    def prepared(rank: int, code: int, why: dict[str, Any]) -> dict[str, Any]:
        job = {"exit_code": code, "reason": why["text"]} if rank == 0 else None
        told = message(rank, code, failure=why, phase="prepare", job=job)
        return pod(rank, phase="Failed", prepare={"terminated": {"exitCode": code, "message": told}})

    made = settle(facts(2), workers(prepared(0, 124, late), prepared(1, 4, early), nnodes=2))
    assert (made["exit_code"], made["reason"]) == (4, early["text"])
    first = early | {"at": 60.0}
    made = settle(facts(2), workers(prepared(0, 124, late), prepared(1, 4, first), nnodes=2))
    assert (made["exit_code"], made["reason"]) == (124, late["text"])


@pytest.mark.parametrize("own", ["interrupted", "timeout"])
def test_a_failure_that_the_agents_met_before_the_launchers_own_word_stays_the_jobs(own: Any) -> None:
    """They take their time to stop each other: a signal in it comes before the launcher has heard of the failure."""
    mine = Failure(own, "stopped by SIGINT", 130, at=1003.0)
    assert settle(facts(), gang_of([42, 42, 42, 42]), failure=mine)["exit_code"] == 42
    early = Failure(own, "stopped by SIGINT", 130, at=999.0)
    assert settle(facts(), gang_of([42, 42, 42, 42]), failure=early)["exit_code"] == 130
    killed = workers(*(pod(rank, phase="Failed", worker=terminated(137)) for rank in range(4)))
    assert settle(facts(), killed, failure=Failure(own, "stopped by SIGINT", 130, at=2e9))["exit_code"] == 130


def test_an_agent_that_was_told_to_stop_before_it_was_up_says_nothing() -> None:
    cases: tuple[dict[str, Any], ...] = (
        {"prepare": terminated(143, None), "worker": waiting("PodInitializing")},  # a plain pod
        {"prepare": terminated(75, None), "worker": waiting("PodInitializing")},
        {"prepare": terminated(0), "worker": terminated(75, None)},
    )
    for states in cases:
        found = first_failure(facts(1), workers(pod(0, phase="Failed", **states), nnodes=1))
        assert found is not None
        assert (found.kind, found.code) == ("interrupted", 143)
    script = first_failure(facts(1), workers(ended(0, 143, ""), nnodes=1))
    assert script is not None
    assert script.kind == "lost"
