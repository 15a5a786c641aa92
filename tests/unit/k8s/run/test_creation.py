"""Objects are made, or an error names whose place they would have taken."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_answers import Answer, Server, serving
from torchnet.errors import UsageError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.run.creation import create

EXISTS: Answer = (409, {}, {"reason": "AlreadyExists", "message": "already exists"})
LOST: Answer = (504, {}, {"message": "the gateway's time is over"})

server = pytest.fixture(serving)
client = pytest.fixture(api_answers.client)


def code(data: str = "new", **meta: Any) -> dict[str, Any]:
    """A run's ConfigMap."""
    labels = {"torchnet.alt/run": "train-1"}
    metadata = {"name": "train-1-code", "namespace": "ml", "labels": labels} | meta
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "binaryData": {"code.zip": data},
    }


def job() -> dict[str, Any]:
    meta = {"name": "train-1", "namespace": "ml", "labels": {"torchnet.alt/run": "train-1"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}


def refusal(client: ApiClient, body: dict[str, Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        create(client, [body], lambda _: None)
    return caught.value


def test_what_an_earlier_run_of_the_name_left_is_told_with_the_way_to_remove_it(
    server: Server, client: ApiClient
) -> None:
    server.answers = [EXISTS, (200, {}, code("old"))]
    error = refusal(client, code())
    assert error.text == "ConfigMap train-1-code of run train-1 already exists in namespace ml"
    assert error.fix == "torchnet down train-1 -n ml"


def test_the_same_where_it_may_not_be_read(server: Server, client: ApiClient) -> None:
    server.answers = [EXISTS, (403, {}, {"message": "no"})]
    assert refusal(client, code()).fix == "torchnet down train-1 -n ml"


def test_somebody_elses_object_is_no_run_of_torchnets(server: Server, client: ApiClient) -> None:
    server.answers = [EXISTS, (200, {}, code("old", labels={}))]
    error = refusal(client, code())
    assert "not managed by torchnet" in error.text
    assert error.fix == "choose another --run-id"


def test_a_workload_is_a_run_with_its_state(server: Server, client: ApiClient) -> None:
    there = job() | {"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}
    server.answers = [EXISTS, (200, {}, there)]
    error = refusal(client, job())
    assert error.text == "run train-1 already exists in namespace ml (suspended)"
    assert "torchnet attach train-1 -n ml, or torchnet down train-1 -n ml" in error.fix


def test_the_echo_of_a_try_whose_answer_was_lost_is_the_object(server: Server, client: ApiClient) -> None:
    made = copy.deepcopy(code()) | {"immutable": True}
    made["metadata"]["uid"] = "u"
    server.answers = [LOST, EXISTS, (200, {}, made)]
    assert create(client, [code()], lambda _: None) == [made]


@pytest.mark.parametrize("there", [code("old"), code(deletionTimestamp="2026-01-01T00:00:00Z")])
def test_a_lost_answer_makes_no_other_object_the_own_one(
    server: Server, client: ApiClient, there: dict[str, Any]
) -> None:
    server.answers = [LOST, EXISTS, (200, {}, there)]
    assert refusal(client, code()).fix == "torchnet down train-1 -n ml"


def test_a_conflict_that_is_no_name_in_use_is_told_as_it_is(server: Server, client: ApiClient) -> None:
    said = "Operation cannot be fulfilled on resourcequotas: the object has been modified"
    conflict: Answer = (409, {}, {"reason": "Conflict", "message": said})
    server.answers = [conflict]
    with pytest.raises(ApiRefusal, match="Operation cannot be fulfilled"):
        create(client, [code()], lambda _: None)
    # Of two that a quota counts at the same moment, one is refused, and nothing was made.
    made = {"metadata": {"name": "train-1"}}
    server.answers = [conflict, conflict, (201, {}, made)]
    assert create(client, [code()], lambda _: None) == [made]
