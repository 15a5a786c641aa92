"""Where hosts meet, and whose host that is."""

from __future__ import annotations

import socket

import pytest

from torchnet.hosts.host_endpoint import HostEndpoint


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a", False),
    ],
)
def test_an_address_of_each_machine_itself(host: str, here: bool) -> None:
    assert HostEndpoint(host, 1).on_loopback == here


def test_the_own_host_is_known_by_name_and_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HostEndpoint(socket.gethostname(), 1).is_own()
    assert not HostEndpoint("name-of-nobody.invalid", 1).is_own()
    assert not HostEndpoint("192.0.2.1", 1).is_own()
    # As Debian's installer writes it into /etc/hosts.
    monkeypatch.setattr(HostEndpoint, "addresses", lambda _self: ("127.0.1.1",))
    assert HostEndpoint("this-host.example", 1).is_own()


def test_rank_0_listens_on_all_addresses_and_both_families() -> None:
    endpoint = HostEndpoint("name-of-nobody.invalid", 0)
    with endpoint.bound() as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            HostEndpoint("localhost", port).opened()
        for address in ("127.0.0.1", "127.0.3.3"):
            socket.create_connection((address, port)).close()
        if socket.has_dualstack_ipv6():
            socket.create_connection(("::1", port)).close()


def test_of_several_processes_on_one_machine_one_listens() -> None:
    """A port that is looked at, closed and opened again later would make two of them rank 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = HostEndpoint("localhost", port, alone=True)
    found = endpoint.opened()
    with pytest.raises(OSError, match="in use"):
        endpoint.opened()
    assert found.bound() is found.listener
    # Who connects before the server takes over waits for it.
    client = socket.create_connection(("127.0.0.1", port))
    found.bound().listen(16)
    found.bound().accept()[0].close()
    client.close()
    found.close()
    endpoint.opened().close()


def test_where_all_nodes_are_on_one_machine_no_other_reaches_it() -> None:
    endpoint = HostEndpoint("localhost", 0, alone=True)
    with endpoint.bound() as sock:
        assert sock.getsockname()[0] in ("127.0.0.1", "::1")


def test_the_interface_of_an_endpoint() -> None:
    assert HostEndpoint("name-of-nobody.invalid", 1).interface() == ""
    assert HostEndpoint("127.0.0.1", 1).interface() == ""
