"""A name server for tests: UDP, names in memory; CoreDNS, which the cluster's tests use, answers in the same way."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field

from torchnet.network.dns_message import AAAA, NAME_ERROR, SRV, A, Question

HEADER = struct.Struct("!6H")


@dataclass
class Names:
    """What the server knows and was asked; ``code`` is the code of each response instead."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    code: int = 0
    silent: bool = False


class DnsServer:
    """Serves ``with DnsServer(host) as server`` on ``server.port``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.names = Names()
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self.host, self.port = host, int(self._socket.getsockname()[1])

    def __enter__(self) -> DnsServer:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            question = asked(data)
            self.names.asked.append(question)
            if not self.names.silent:
                self._socket.sendto(response(data, self.names, question), sender)


def asked(data: bytes) -> Question:
    """Read a question, with the RFC's own numbers."""
    _, flags, _, _, _, more = HEADER.unpack_from(data)
    labels, at = [], HEADER.size
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return Question(
        ".".join(labels), int.from_bytes(data[at + 1 : at + 3], "big"), bool(more), bool(flags & 0x10)
    )


def response(data: bytes, names: Names, question: Question) -> bytes:
    """The response, as CoreDNS forms it: names compressed; of SRV, the targets' addresses as additional records."""
    at = data.index(b"\0", HEADER.size) + 5
    plain = question.name.removeprefix("_join._tcp.")
    known = names.addresses.get(plain)
    code = names.code or (0 if known is not None else NAME_ERROR)
    packed = [socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in known or []]
    records = [record(b"\xc0\x0c", AAAA if len(one) == 16 else A, one) for one in packed]
    target = b"".join(bytes([len(label)]) + label.encode() for label in plain.split(".")) + b"\0"
    services = [record(b"\xc0\x0c", SRV, struct.pack("!3H", 0, 100, 29499) + target) for _ in packed]
    answers, more = (services, records) if question.kind == SRV else (records, [])
    if question.kind in (A, AAAA):
        answers = [one for one in records if one[2:4] == question.kind.to_bytes(2, "big")]
    if names.code:
        answers, more = [], []
    head = HEADER.pack(int.from_bytes(data[:2], "big"), 0x8580 | code, 1, len(answers), 0, len(more))
    return head + data[HEADER.size : at] + b"".join(answers) + b"".join(more)


def record(name: bytes, kind: int, value: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 30, len(value)) + value
