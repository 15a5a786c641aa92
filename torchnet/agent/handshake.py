"""The handshake of the rendezvous: the proof of the job's token, an HMAC challenge in both directions (RFC 2104).

    server -> client   a nonce
    client -> server   a nonce, the message, and HMAC(token, "client" + both nonces + message)
    server -> client   HMAC(token, "server" + both nonces)

The token is never sent. The message (the join request) is covered by the proof; what follows on the connection is not
signed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import Any

NONCE_BYTES = 16
MAGIC = b"torchnet2\n"  # the version of the messages between agents
CHALLENGE_BYTES = len(MAGIC) + NONCE_BYTES
PROOF_BYTES = 32


def new_challenge() -> bytes:
    """Return the server's first message, :data:`CHALLENGE_BYTES` bytes."""
    return MAGIC + os.urandom(NONCE_BYTES)


def answer_challenge(token: str, challenge: bytes, message: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the client's answer, to be framed, and the proof that the server must send back.

    Raises:
        ValueError: ``challenge`` is not a challenge: another program listens there.
    """
    if len(challenge) != CHALLENGE_BYTES or not challenge.startswith(MAGIC):
        raise ValueError("the listener is not a torchnet agent of this version (not a challenge)")
    nonce = os.urandom(NONCE_BYTES)
    text = json.dumps(message, separators=(",", ":"))
    both = challenge[len(MAGIC) :] + nonce
    signed = {
        "nonce": nonce.hex(),
        "message": text,
        "proof": _sign(token, b"client" + both + text.encode()).hex(),
    }
    return signed, _sign(token, b"server" + both)


def check_answer(token: str, challenge: bytes, signed: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the client's message, and the server's own proof to send back.

    Raises:
        ValueError: the proof is wrong, or the answer is malformed.
    """
    try:
        nonce = bytes.fromhex(signed["nonce"])
        text = str(signed["message"])
        proof = bytes.fromhex(signed["proof"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an answer") from None
    both = challenge[len(MAGIC) :] + nonce
    if len(nonce) != NONCE_BYTES or not hmac.compare_digest(
        proof, _sign(token, b"client" + both + text.encode())
    ):
        raise ValueError("wrong token")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message, _sign(token, b"server" + both)


def probe_key(token: str) -> bytes:
    """Return the key that signs the preflight's datagrams."""
    return _sign(token, b"probe")


def _sign(token: str, data: bytes) -> bytes:
    return hmac.new(token.encode(), data, hashlib.sha256).digest()
