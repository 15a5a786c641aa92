"""The proof of the token: any changed byte is refused, and the token is in none of them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from torchnet.agent.handshake import (
    CHALLENGE_BYTES,
    MAGIC,
    PROOF_BYTES,
    answer_challenge,
    check_answer,
    new_challenge,
    probe_key,
)
from torchnet.agent.messages import decode_row, encode_row
from torchnet.errors import NetworkError
from torchnet.network.peer_table import PeerRail, PeerRow

TOKENS = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable())
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
MESSAGES = st.dictionaries(st.text(max_size=10), VALUES, max_size=4)
quick = settings(deadline=None, max_examples=100)


@quick
@given(TOKENS, MESSAGES)
def test_both_sides_are_convinced(token: str, message: dict[str, Any]) -> None:
    asked = new_challenge()
    assert len(asked) == CHALLENGE_BYTES
    signed, expected = answer_challenge(token, asked, message)
    got, proof = check_answer(token, asked, json.loads(json.dumps(signed)))
    assert got == message
    assert proof == expected
    assert len(proof) == PROOF_BYTES


@quick
@given(TOKENS, TOKENS, MESSAGES)
def test_another_token_is_refused(token: str, other: str, message: dict[str, Any]) -> None:
    asked = new_challenge()
    signed, expected = answer_challenge(token, asked, message)
    if token == other:
        return
    with pytest.raises(ValueError, match="wrong token"):
        check_answer(other, asked, signed)
    # And the client is not taken in by a server that only pretends.
    assert answer_challenge(other, asked, message)[1] != expected


@quick
@given(MESSAGES, st.data())
def test_any_changed_byte_of_what_is_signed_is_refused(message: dict[str, Any], data: st.DataObject) -> None:
    asked = new_challenge()
    signed, _ = answer_challenge("token", asked, message)
    part = data.draw(st.sampled_from(["challenge", "nonce", "message", "proof"]))
    if part == "challenge":
        changed = flipped(asked, data, first=len(MAGIC))
        with pytest.raises(ValueError):
            check_answer("token", changed, signed)
        return
    raw = signed[part].encode() if part == "message" else bytes.fromhex(signed[part])
    new = flipped(raw, data)
    with contextlib.suppress(UnicodeDecodeError):
        broken = {**signed, part: new.decode() if part == "message" else new.hex()}
        with pytest.raises(ValueError, match="wrong token"):
            check_answer("token", asked, broken)


@quick
@given(MESSAGES, st.data())
def test_a_changed_byte_on_the_wire_never_changes_the_message(
    message: dict[str, Any], data: st.DataObject
) -> None:
    asked = new_challenge()
    signed, _ = answer_challenge("token", asked, message)
    wire = flipped(json.dumps(signed).encode(), data)
    try:
        got, _ = check_answer("token", asked, json.loads(wire))
    except (ValueError, TypeError, AttributeError, KeyError):
        return
    assert got == message  # "A" for "a" in a hexadecimal number is the same number


def flipped(raw: bytes, data: st.DataObject, first: int = 0) -> bytes:
    place = data.draw(st.integers(first, len(raw) - 1))
    return raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]


@quick
@given(MESSAGES)
def test_an_old_answer_is_of_no_use(message: dict[str, Any]) -> None:
    signed, _ = answer_challenge("token", new_challenge(), message)
    with pytest.raises(ValueError, match="wrong token"):
        check_answer("token", new_challenge(), signed)


@quick
@given(st.binary(max_size=60))
def test_what_is_no_challenge_is_told(received: bytes) -> None:
    if received.startswith(MAGIC) and len(received) == CHALLENGE_BYTES:
        return
    with pytest.raises(ValueError, match="not a challenge"):
        answer_challenge("token", received, {})


@quick
@given(
    st.dictionaries(
        st.sampled_from(["nonce", "message", "proof", "x"]),
        st.recursive(
            VALUES,
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ),
    )
)
def test_what_is_no_answer_is_a_value_error(signed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        check_answer("token", new_challenge(), signed)


@quick
@given(st.text(min_size=8, max_size=40).filter(lambda text: text.isprintable()), MESSAGES)
@example("torchnet2", {})
def test_the_token_is_in_none_of_the_bytes(token: str, message: dict[str, Any]) -> None:
    plain = token.encode(errors="surrogatepass")
    # A token may happen to be a word of the protocol or of the message: that is there with any other, too.
    assume(plain not in on_the_wire("another", message))
    assert plain not in on_the_wire(token, message)
    assert plain.hex().encode() not in on_the_wire(token, message)


def on_the_wire(token: str, message: dict[str, Any]) -> bytes:
    asked = new_challenge()
    signed, proof = answer_challenge(token, asked, message)
    text = json.dumps(signed, ensure_ascii=False).encode(errors="surrogatepass")
    return asked + text + proof + probe_key(token)


def test_nonces_do_not_repeat() -> None:
    assert len({new_challenge() for _ in range(1000)}) == 1000
    asked = new_challenge()
    assert len({answer_challenge("t", asked, {})[0]["nonce"] for _ in range(1000)}) == 1000


def test_the_keys_of_join_and_probes_differ() -> None:
    assert probe_key("a") != probe_key("b")
    assert len(probe_key("a")) == 32


def test_rows_travel_as_text() -> None:
    row = PeerRow(3, "node-3", "uid", (PeerRail("net1", "fd00::4", 9000),), ("10.0.0.4",))
    assert decode_row(encode_row(row)) == row
    with pytest.raises(ValueError, match="at least one rail"):
        decode_row(encode_row(PeerRow(3, "node-3", "uid", (), ("10.0.0.4",))))


@quick
@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda b: b.hex()))
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises((ValueError, NetworkError)):
        decode_row(text)
