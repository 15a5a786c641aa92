"""The API server of the unit tests keeps the contract of the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, storing
from tests.unit.store_contract import CHECKS, Collection

store = pytest.fixture(storing)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_store_keeps_the_contract(
    store: Store, tmp_path: Path, check: Callable[[Collection, str], None]
) -> None:
    check(Collection(client(store, tmp_path), "ml"), "contract")


def test_a_watch_from_a_compacted_version_is_expired(store: Store, tmp_path: Path) -> None:
    """Not in the contract: a real server answers so only after etcd's compaction, every 5 minutes.

    Source:
        newErrWatcher in k8s.io/apiserver/pkg/storage/cacher
    """
    (event,) = Collection(client(store, tmp_path), "ml").watch("1", "run=x")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
