"""Who owns a run's objects, so that the garbage collector deletes them with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Answer, Server, client
from tests.unit.api_store import Store, forbidden, refusal, storing
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.run.creation import create
from torchnet.k8s.run.owner_references import set_owners

store = pytest.fixture(storing)


def body(kind: str, name: str, api: str = "v1", **meta: Any) -> dict[str, Any]:
    labels = {"torchnet.alt/run": "train-1"}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": "ml", "labels": labels} | meta,
    }


def pods(count: int, **meta: Any) -> list[dict[str, Any]]:
    return [body("Pod", f"train-1-{rank}", uid=f"u{rank}", **meta) for rank in range(count)]


CODE, SECRET = body("ConfigMap", "train-1-code"), body("Secret", "train-1-token")


class Keeping(Server):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, dict[str, Any]]] = []

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        self.said.append((path.partition("?")[0], json.loads(said)))
        return 200, {}, {}


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    made = Keeping()
    yield made
    made.close()


@pytest.mark.parametrize("count", [1, 3, 16])
def test_each_plain_pod_owns_what_was_made_before_so_that_it_goes_with_the_last(
    keeping: Keeping, tmp_path: Path, count: int
) -> None:
    set_owners(client(keeping, tmp_path), [CODE, *pods(count)])
    ((path, said),) = keeping.said
    assert path == "/api/v1/namespaces/ml/configmaps/train-1-code"
    assert said == {
        "metadata": {
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": f"train-1-{rank}", "uid": f"u{rank}"}
                for rank in range(count)
            ]
        }
    }


@pytest.mark.parametrize("kind", [("batch/v1", "Job"), ("jobset.x-k8s.io/v1alpha2", "JobSet")])
def test_a_workload_alone_is_the_owner(keeping: Keeping, tmp_path: Path, kind: tuple[str, str]) -> None:
    set_owners(client(keeping, tmp_path), [CODE, SECRET, body(kind[1], "train-1", kind[0], uid="u")])
    assert [path.rpartition("/")[2] for path, _ in keeping.said] == ["train-1-code", "train-1-token"]
    for _, said in keeping.said:
        (reference,) = said["metadata"]["ownerReferences"]
        assert reference == {"apiVersion": kind[0], "kind": kind[1], "name": "train-1", "uid": "u"}


@pytest.mark.parametrize("count", [17, 1000])
def test_many_plain_pods_belong_to_the_first_configmap(store: Store, tmp_path: Path, count: int) -> None:
    """It owns all else as well, from its creation on: nothing is patched afterwards."""
    made = create(client(store, tmp_path), [CODE, SECRET, *pods(count)], lambda _: None)
    owner = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "train-1-code",
        "uid": made[0]["metadata"]["uid"],
    }
    assert "ownerReferences" not in made[0]["metadata"]
    assert len(made) == count + 2
    assert all(one["metadata"]["ownerReferences"] == [owner] for one in made[1:])
    set_owners(client(store, tmp_path), made)
    assert store.wanted("PATCH", "") == 0


def test_few_plain_pods_are_created_without_an_owner(store: Store, tmp_path: Path) -> None:
    made = create(client(store, tmp_path), [CODE, SECRET, *pods(16)], lambda _: None)
    assert not [one for one in made if "ownerReferences" in one["metadata"]]


def test_what_is_rendered_is_not_changed(store: Store, tmp_path: Path) -> None:
    rendered = [CODE, *pods(17)]
    before = json.dumps(rendered)
    create(client(store, tmp_path), rendered, lambda _: None)
    assert json.dumps(rendered) == before


def test_without_the_right_to_patch_they_stay_without_owners(store: Store, tmp_path: Path) -> None:
    store.faults = [("PATCH", "/configmaps/", forbidden("configmaps"))]
    set_owners(client(store, tmp_path), [store.put(one) for one in (CODE, SECRET, *pods(2))])
    assert store.wanted("PATCH", "") == 1, "the others are forbidden as well"


def test_what_is_gone_meanwhile_is_skipped_and_another_refusal_is_not(store: Store, tmp_path: Path) -> None:
    made = [CODE, store.put(SECRET), *pods(2)]
    set_owners(client(store, tmp_path), made)
    assert [path.rpartition("/")[2] for path, _ in store.patches] == ["train-1-token"]
    store.faults = [("PATCH", "/secrets/", refusal(422, "Invalid", "no"))]
    with pytest.raises(ApiRefusal, match="no"):
        set_owners(client(store, tmp_path), made)
