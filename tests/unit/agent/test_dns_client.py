"""The pod's name servers: its resolv.conf, and responses that come, come wrong, or do not come."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.dns_server import DnsServer
from torchnet.agent.dns_client import NameServers, NoResponseError
from torchnet.network.dns_message import NAME_ERROR, A, Question

QUESTION = Question("run.ml.svc.cluster.local", A)
KUBELETS = """\
search ml.svc.example.org svc.example.org example.org
nameserver 10.96.0.10
nameserver fd00::a
nameserver 10.0.0.3
nameserver 10.0.0.4
options ndots:5
"""


def test_the_kubelets_file_names_servers_and_the_clusters_domain(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(KUBELETS)
    found = NameServers.from_file(str(file))
    assert found.servers == ("10.96.0.10", "fd00::a", "10.0.0.3")
    assert found.services_domain("ml") == "ml.svc.example.org"
    assert found.services_domain("other") == "other.svc.cluster.local"


def test_without_a_file_there_is_no_server(tmp_path: Path) -> None:
    none = NameServers.from_file(str(tmp_path / "none"))
    assert none.services_domain("ml") == "ml.svc.cluster.local"
    with pytest.raises(NoResponseError, match="there is no name server"):
        none.ask(QUESTION)


def test_a_response() -> None:
    with DnsServer() as server:
        servers = NameServers((server.host,), port=server.port)
        assert servers.ask(QUESTION).code == NAME_ERROR
        server.names.addresses[QUESTION.name] = ["10.0.0.7"]
        assert servers.ask(QUESTION).addresses == ("10.0.0.7",)
        assert server.names.asked == [QUESTION, QUESTION]


def test_a_silent_server_costs_half_a_second() -> None:
    with DnsServer() as server:
        server.names.silent = True
        began = time.monotonic()
        with pytest.raises(NoResponseError, match=r"no response from the name server 127\.0\.0\.1"):
            NameServers((server.host,), port=server.port).ask(QUESTION)
    assert 0.4 < time.monotonic() - began < 1.5


def test_a_closed_port_is_an_error_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(NoResponseError, match=r"127\.0\.0\.1: Connection refused"):
        NameServers(("127.0.0.1",), port=port).ask(QUESTION)
    assert time.monotonic() - began < 0.4


def test_one_of_several_servers_is_enough() -> None:
    with DnsServer("127.0.0.2") as good, DnsServer("127.0.0.1", good.port) as silent:
        silent.names.silent = True
        good.names.addresses[QUESTION.name] = ["10.0.0.7"]
        servers = NameServers((silent.host, good.host), port=good.port)
        assert servers.ask(QUESTION).addresses == ("10.0.0.7",)
