"""The variables that torchnet.init() reads, and what it says of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.errors import UsageError
from torchnet.training import world


def environment(**fields: str | None) -> dict[str, str]:
    values: dict[str, str | None] = {
        "RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "fcbb::a",
        "MASTER_PORT": "29501",
    }
    return {name: value for name, value in {**values, **fields}.items() if value is not None}


def test_a_world_is_read() -> None:
    nothing = world.read({"HOME": "/"})
    assert nothing is None
    plain = world.read(environment())
    assert plain is not None
    assert (plain.rank, plain.world_size, plain.local_rank, plain.local_world_size) == (1, 4, None, 1)
    assert (plain.node_rank, plain.libuv, plain.agent_store) == (1, True, False)
    whole = world.read(environment(RANK="3", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2", USE_LIBUV="0"))
    assert whole is not None
    assert (whole.local_rank, whole.local_world_size, whole.node_rank, whole.libuv) == (1, 2, 1, False)
    named = world.read(
        environment(GROUP_RANK="7", TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="2")
    )
    assert named is not None
    assert (named.node_rank, named.agent_store, named.attempt) == (7, True, 2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"RANK": None}, ["RANK is not set"]),
        ({"RANK": ""}, ["RANK is not set"]),
        ({"MASTER_PORT": None, "MASTER_ADDR": None}, ["MASTER_ADDR is not set", "MASTER_PORT is not set"]),
        ({"RANK": "4"}, ["RANK is 4, not a whole number, 0 to 3"]),
        (
            {"RANK": "x\x1b", "WORLD_SIZE": "0"},
            ["RANK is x\\x1b, not", "WORLD_SIZE is 0, not a whole number, 1 or more"],
        ),
        ({"MASTER_PORT": "0"}, ["MASTER_PORT is 0, not a whole number, 1 to 65535"]),
        ({"MASTER_PORT": "65536"}, ["MASTER_PORT is 65536"]),
        ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, ["LOCAL_RANK is 2, not a whole number, 0 to 1"]),
        ({"LOCAL_WORLD_SIZE": "5"}, ["LOCAL_WORLD_SIZE is 5, not a whole number, 1 to 4"]),
        ({"MASTER_ADDR": "[fcbb::a]"}, ["MASTER_ADDR is [fcbb::a]: brackets"]),
    ],
)
def test_what_is_missing_or_wrong_is_named(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        world.read(environment(**fields))
    for text in said:
        assert text in str(caught.value)
    assert "torchnet launch" in caught.value.fix
