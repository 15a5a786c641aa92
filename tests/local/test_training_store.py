"""The socket that rank 0's store is given: bound to MASTER_ADDR alone."""

from __future__ import annotations

import os
import socket
import warnings

import pytest

from torchnet.errors import UsageError
from torchnet.training import store


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"MASTER_PORT {port} on 127.0.0.1 is in use") as caught:
            store.listen("127.0.0.1", port)
        assert "ss -ltnp" in caught.value.fix


def test_a_name_that_nobody_knows_is_named() -> None:
    with pytest.raises(UsageError, match="known name"):
        store.listen("[::1]", 29501)


def test_an_address_of_another_machine_is_left_to_torch() -> None:
    with pytest.warns(RuntimeWarning, match=r"192.0.2.1 is not an address of this machine"):
        assert store.listen("192.0.2.1", 29501) is None


def test_the_socket_is_not_inherited() -> None:
    with warnings.catch_warnings():
        descriptor = store.listen("127.0.0.1", 0)
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
