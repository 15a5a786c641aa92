"""The flags of `torchnet agent` are the fields of its specification."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.agent.command_line import dashed, main, parse, spec_of
from torchnet.agent.source_selection import source_of
from torchnet.agent.spec import FLAGS, flag_of
from torchnet.errors import NetworkError, UsageError
from torchnet.network.attachment import NetworkAttachment

VALUES: dict[str, Any] = {
    "run_id": "r",
    "nnodes": 3,
    "nproc_per_node": 2,
    "node_rank": 1,
    "name": "n",
    "family": "ipv6",
    "preflight": "full",
    "max_restarts": 4,
    "stdin_rank": 2,
    "log_dir": "d",
    "raw": True,
    "rdzv_id": "i d",
    "role": "r",
    "virtual_local_rank": True,
    "tee": "1",
    "redirects": "0:3",
    "grace": 1.5,
    "link_grace": 2.5,
    "stall_timeout": 3.5,
    "stall_action": "stop",
    "start_timeout": 4.5,
    "min_share": 0.5,
    "measure": True,
    "full_receipt": True,
    "phase": "prepare",
    "state": "/s",
    "replaced": 2,
    "start": "1",
    "attachments": (NetworkAttachment("ml", "net", "net1"), NetworkAttachment("", "other")),
}


def words(underscores: bool) -> list[str]:
    found = []
    for one in FLAGS:
        value = VALUES[one.name]
        for item in value if isinstance(value, tuple) else (value,):
            flag = flag_of(one)
            found.append(f"--{flag[2:].replace('-', '_')}" if underscores else flag)
            found += [] if item is True else [str(item)]
    return found


@pytest.mark.parametrize("underscores", [False, True])
def test_every_flag_sets_its_field(underscores: bool) -> None:
    made = spec_of(parse([*words(underscores), "x.py", "--grace", "9"]), joins=False)
    assert {name: getattr(made, name) for name in VALUES} == VALUES
    assert (made.command, made.entry) == (("x.py", "--grace", "9"), "script")


def test_a_switch_takes_no_value() -> None:
    assert dashed(["--measure", "x_y.py", "--a_b"]) == ["--measure", "x_y.py", "--a_b"]
    assert dashed(["--log_dir", "a_b", "--no_python", "x"]) == ["--log-dir", "a_b", "--no-python", "x"]


def test_the_hosts_own_networks_name_the_source_and_the_devices() -> None:
    # lo is the one interface that every host has.
    options = parse(["--network", "host:lo", "--network", "rdma:mlx5_0,mlx5_1", "x.py"])
    made = spec_of(options, joins=False)
    assert (made.network, made.devices, made.command) == ("host", ("mlx5_0", "mlx5_1"), ("x.py",))
    (entry,) = source_of(options, made).attachments()
    assert (entry.name, entry.interface, entry.network) == ("host:lo", "lo", "")


def test_a_network_is_given_once_and_exists() -> None:
    with pytest.raises(UsageError, match="--address-source"):
        parse(["--network", "host:lo", "--address-source", "host:lo", "x.py"])
    with pytest.raises(SystemExit):
        parse(["--network", "ens5", "x.py"])
    options = parse(["--network", "host:absent9", "x.py"])
    with pytest.raises(NetworkError, match="absent9"):
        source_of(options, spec_of(options, joins=False))
    with pytest.raises(NetworkError, match="mlx5_absent"):
        main(["--network", "rdma:mlx5_absent", "--address-source", "host:lo", "x.py"])
