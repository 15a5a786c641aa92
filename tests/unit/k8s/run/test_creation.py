"""Objects are made, or an error names whose place they would have taken."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_answers import Answer, Server, serving
from tests.unit.api_store import Store, forbidden
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


PODS = 40


def plain_pod(number: int) -> dict[str, Any]:
    meta = {"name": f"train-1-{number}", "namespace": "ml", "labels": {"torchnet.alt/run": "train-1"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


def names(bodies: list[dict[str, Any]]) -> list[str]:
    return [body["metadata"]["name"] for body in bodies]


class Slow(Store):
    """Takes 0.1 s for each creation; pods of the names in ``refused`` are refused at once."""

    refused: tuple[str, ...] = ()

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        if method == "POST":
            if json.loads(said)["metadata"]["name"] in self.refused:
                return forbidden("pods")
            time.sleep(0.1)
        return super().answer(method, path, said)


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.close()


def test_plain_pods_are_made_at_the_same_time(slow: Slow, tmp_path: Path) -> None:
    objects = [code(), *map(plain_pod, range(PODS))]
    told: list[dict[str, Any]] = []
    began = time.monotonic()
    made = create(api_answers.client(slow, tmp_path), objects, told.append)
    assert time.monotonic() - began < 0.1 * PODS / 2
    assert names(made) == names(objects), "in their order"
    assert sorted(names(told)) == sorted(names(objects))
    posted = [at for at, verb, _, _ in slow.asked if verb == "POST"]
    assert posted[1] - posted[0] >= 0.1 <= posted[2] - posted[1], "the first pod alone, after all else"
    owner = made[0]["metadata"]["uid"]
    assert all(one["metadata"]["ownerReferences"][0]["uid"] == owner for one in made[1:])


def test_after_a_failure_no_more_pods_are_made_and_those_that_were_are_told(
    slow: Slow, tmp_path: Path
) -> None:
    slow.refused = ("train-1-20",)
    told: list[dict[str, Any]] = []
    with pytest.raises(ApiRefusal, match="not allowed to create pods"):
        create(api_answers.client(slow, tmp_path), [code(), *map(plain_pod, range(PODS))], told.append)
    there = [body["metadata"]["name"] for body in slow.objects.values()]
    assert sorted(names(told)) == sorted(there), "what has to be removed is known"
    assert len(there) < PODS


def test_a_name_in_use_counts_most_of_several_errors(slow: Slow, tmp_path: Path) -> None:
    """After any other error, every object with the label is removed, and some may belong to another run."""
    slow.put(plain_pod(7))
    slow.refused = ("train-1-1",)
    with pytest.raises(UsageError, match="train-1 already exists"):
        create(api_answers.client(slow, tmp_path), [code(), *map(plain_pod, range(16))], lambda _: None)


def test_a_stop_ends_it_with_what_was_made(slow: Slow, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    made = create(
        api_answers.client(slow, tmp_path),
        [code(), *map(plain_pod, range(PODS))],
        told.append,
        lambda: len(told) >= 10,
    )
    assert 10 <= len(made) < PODS
    assert sorted(names(made)) == sorted(names(told))
