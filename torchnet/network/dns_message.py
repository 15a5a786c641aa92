"""DNS messages: a question, and the IP addresses in the response (pure).

Source:
    RFC 1035 (format), RFC 2782 (SRV), RFC 4035 section 3.2 (the CD bit), RFC 6891 (EDNS and its DO bit)
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

A, AAAA, SRV = 1, 28, 33
_IN, _OPT = 1, 41
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _CHECKING_DISABLED = 0x8000, 0x0200, 0x0100, 0x0010
_CODE = 0x000F
_DNSSEC_OK = 0x8000
_PAYLOAD = 1232  # bytes of a response that fits each path; EDNS requires a size
NO_ERROR, NAME_ERROR = 0, 3
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


@dataclass(frozen=True)
class Question:
    """A question. Name servers cache the responses to questions that differ in any field separately.

    Attributes:
        name: absolute, without the final dot.
        kind: `A`, `AAAA` or `SRV`.
        dnssec: the DO bit: the response may contain signatures.
        unchecked: the CD bit: the server need not verify signatures.
    """

    name: str
    kind: int
    dnssec: bool = False
    unchecked: bool = False


@dataclass(frozen=True)
class Response:
    """What a name server knows: ``code`` is its response code, ``addresses`` are in canonical form."""

    code: int
    addresses: tuple[str, ...]

    @property
    def code_name(self) -> str:
        return _CODES.get(self.code, f"code {self.code}")


def encode_question(question: Question, number: int) -> bytes:
    """Return the message; ``number`` identifies the response.

    Raises:
        ValueError: the name is not valid.
    """
    flags = _RECURSION_DESIRED | _CHECKING_DISABLED * question.unchecked
    data = _HEADER.pack(number, flags, 1, 0, 0, int(question.dnssec))
    for label in question.name.split("."):
        text = label.encode("ascii")
        if not 0 < len(text) < 64:
            raise ValueError(f"invalid name {question.name!r}")
        data += bytes([len(text)]) + text
    data += b"\0" + struct.pack("!HH", question.kind, _IN)
    if question.dnssec:
        data += b"\0" + _RECORD.pack(_OPT, _PAYLOAD, _DNSSEC_OK, 0)
    return data


def decode_response(data: bytes, question: Question, number: int) -> Response:
    """Return the response to a question. Of an SRV question, the addresses are those of its targets.

    Raises:
        ValueError: it is malformed, truncated, or the response to another question.
    """
    try:
        found, flags, questions, answers, authorities, more = _HEADER.unpack_from(data)
        if found != number or not flags & _RESPONSE or questions != 1:
            raise ValueError("not the response")
        name, at = _name(data, _HEADER.size)
        if name.lower() != question.name.lower() or data[at : at + 2] != question.kind.to_bytes(2, "big"):
            raise ValueError("the response to another question")
        if flags & _TRUNCATED:
            raise ValueError("a truncated response")
        at += 4
        addresses = []
        for section, count in enumerate((answers, authorities, more)):
            for _ in range(count):
                _, at = _name(data, at)
                kind, family, _, length = _RECORD.unpack_from(data, at)
                at += _RECORD.size
                value, at = data[at : at + length], at + length
                # An SRV question has addresses in the section after the next.
                wanted = kind in (A, AAAA) if question.kind == SRV and section == 2 else kind == question.kind
                if family == _IN and wanted and len(value) == {A: 4, AAAA: 16}.get(kind):
                    addresses.append(
                        socket.inet_ntop(socket.AF_INET if kind == A else socket.AF_INET6, value)
                    )
    except (struct.error, IndexError) as error:
        raise ValueError(f"malformed: {error}") from None
    return Response(flags & _CODE, tuple(dict.fromkeys(addresses)))


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return the name at ``at``, and where it ends. Its parts may stand at earlier places only, so this ends."""
    labels: list[str] = []
    end, limit = -1, at
    while True:
        length = data[at]
        if length >= 0xC0:  # a pointer
            target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            end = at + 2 if end < 0 else end
            if target >= limit:
                raise ValueError("malformed: a pointer that does not point back")
            at = limit = target
        elif length:
            labels.append(data[at + 1 : at + 1 + length].decode("ascii", "replace"))
            at += 1 + length
        else:
            return ".".join(labels), at + 1 if end < 0 else end
