"""A launch reports Whereabouts' limits before it creates anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from torchnet.errors import NetworkError
from torchnet.k8s.run.address_limits import check_addresses

NAME = "ml/backend-network"


def config(**ipam: Any) -> str:
    return json.dumps({"type": "macvlan", "master": "ens5", "ipam": {"type": "whereabouts"} | ipam})


@pytest.mark.parametrize(
    ("ipam", "count"),
    [
        ({"range": "10.0.0.0/29"}, 6),
        ({"range": "10.0.0.5/29"}, 6),
        ({"range": "10.0.0.0/24", "range_start": "10.0.0.10", "range_end": "10.0.0.19"}, 10),
        ({"range": "10.0.0.10-10.0.0.19/24"}, 10),
        ({"range": "10.0.0.0/28", "exclude": ["10.0.0.0/30", "10.0.0.2/31", "fd00::/8"]}, 11),
        ({"range": "fd00::/126"}, 3),
        ({"range": "fd00::/64", "ipRanges": [{"range": "10.0.0.0/30"}]}, 2),
    ],
)
def test_a_range_with_fewer_addresses_than_workers_is_refused(ipam: dict[str, Any], count: int) -> None:
    assert check_addresses(NAME, config(**ipam), count) == ""
    with pytest.raises(NetworkError, match=f"Whereabouts has {count} addresses in ") as caught:
        check_addresses(NAME, config(**ipam), count + 1)
    assert NAME in caught.value.text
    assert "--slice" in caught.value.fix
    assert "--static-ips" in caught.value.fix


def test_that_many_pods_take_minutes_is_told() -> None:
    text = config(range="fd00::/64")
    assert check_addresses(NAME, text, 200) == ""
    told = check_addresses(NAME, text, 1000)
    assert "about 9 min" in told
    assert "--slice" in told
    assert "--static-ips" in told


def test_a_chain_of_plugins_is_read() -> None:
    chain = json.dumps({"plugins": [json.loads(config(range="10.0.0.0/30")), {"type": "tuning"}]})
    with pytest.raises(NetworkError, match="has 2 addresses"):
        check_addresses(NAME, chain, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"plugins": 1}',
        '{"ipam": []}',
        json.dumps({"type": "macvlan", "ipam": {"type": "host-local", "subnet": "10.0.0.0/30"}}),
        config(),
        config(range="everything"),
        config(range=7),
        config(range="10.0.0.0/30", exclude=["x"]),
        config(range="10.0.0.0/30", exclude=7),
        config(ipRanges=["x", {"range": None}]),
        config(range="fd00::/64", node_slice_size="/80"),
    ],
)
def test_of_what_is_not_known_nothing_is_said(text: str) -> None:
    assert check_addresses(NAME, text, 1000) in ("", check_addresses(NAME, config(), 1000))
