"""DNS messages: what is asked, what a response says, and responses that are none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dns_server import HEADER, Names, asked, record, response
from torchnet.network.dns_message import (
    AAAA,
    NAME_ERROR,
    NO_ERROR,
    SRV,
    A,
    Question,
    decode_response,
    encode_question,
)

NAME = "run-0.run.ml.svc.cluster.local"
NAMES = Names({NAME: ["10.0.0.7", "fd00::7"]})


@pytest.mark.parametrize("kind", [A, AAAA, SRV])
@pytest.mark.parametrize("dnssec", [False, True])
@pytest.mark.parametrize("unchecked", [False, True])
def test_a_server_reads_the_question_that_was_asked(kind: int, dnssec: bool, unchecked: bool) -> None:
    question = Question(NAME, kind, dnssec, unchecked)
    assert asked(encode_question(question, 7)) == question


def test_addresses_are_those_of_the_questions_type() -> None:
    for kind, expected in ((A, ("10.0.0.7",)), (AAAA, ("fd00::7",)), (SRV, ("10.0.0.7", "fd00::7"))):
        question = Question(NAME, kind)
        found = decode_response(response(encode_question(question, 9), NAMES, question), question, 9)
        assert (found.code, found.addresses) == (NO_ERROR, expected)


def test_a_name_that_does_not_exist() -> None:
    question = Question("other.local", A)
    found = decode_response(response(encode_question(question, 9), NAMES, question), question, 9)
    assert (found.code, found.addresses, found.code_name) == (NAME_ERROR, (), "NXDOMAIN")


def test_an_alias_is_followed_to_the_address_in_the_response() -> None:
    question = Question(NAME, A)
    data = response(encode_question(question, 9), Names({NAME: []}), question)
    alias = record(b"\xc0\x0c", 5, b"\x01x\0")
    data = (
        HEADER.pack(9, 0x8180, 1, 2, 0, 0) + data[12:] + alias + record(b"\x01x\0", A, bytes([10, 0, 0, 9]))
    )
    assert decode_response(data, question, 9).addresses == ("10.0.0.9",)


def test_what_is_not_the_response() -> None:
    question = Question(NAME, A)
    good = response(encode_question(question, 9), NAMES, question)
    wrong = {
        "another number": struct.pack("!H", 8) + good[2:],
        "a question": good[:2] + b"\x01\0" + good[4:],
        "truncated": good[:2] + b"\x87\x80" + good[4:],
        "another name": good.replace(b"\x05run-0", b"\x05run-1"),
        "another type": good[: 12 + len(NAME) + 2] + b"\0\x1c" + good[12 + len(NAME) + 4 :],
        "cut off": good[:-1],
    }
    assert decode_response(good, question, 9).addresses
    for what, data in wrong.items():
        if what == "cut off":  # the record's value is short, so it is no address
            assert decode_response(data, question, 9).addresses == ()
            continue
        with pytest.raises(ValueError):
            decode_response(data, question, 9)


def test_a_pointer_that_goes_round_ends() -> None:
    question = Question(NAME, A)
    good = response(encode_question(question, 9), NAMES, question)
    end = good.index(b"\0", 12) + 5
    loop = struct.pack("!H", 0xC000 | end)
    with pytest.raises(ValueError, match="pointer"):
        decode_response(good[:end] + loop + good[end + 2 :], question, 9)


@given(st.binary(max_size=80), st.integers(0, 90))
def test_no_bytes_do_more_harm_than_a_value_error(noise: bytes, at: int) -> None:
    question = Question("a.b", SRV)
    good = response(encode_question(question, 9), Names({"a.b": ["10.0.0.7"]}), question)
    for data in (noise, good[:at] + noise, good[:at] + noise + good[at + len(noise) :]):
        try:
            decode_response(data, question, 9)
        except ValueError:
            pass


def test_names_that_cannot_be_asked_for() -> None:
    for name in ("", "a..b", "x" * 64 + ".local", "ä.local"):
        with pytest.raises(ValueError):
            encode_question(Question(name, A), 1)
