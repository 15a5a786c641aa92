"""Why a server gave no answer, in people's words (pure): without the names of classes, pools and line numbers in C."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator

_DEEPEST = 8


def why(error: BaseException) -> str:
    """The end of a sentence that has named the server. ``error``: the client's, urllib3's or the system's own."""
    from urllib3.exceptions import HTTPError, ProxyError

    chain = list(_chain(error))
    # The first that is not the client's wrapping; what that one came from is no longer about the connection.
    found = next((one for one in chain if isinstance(one, (OSError, http.client.HTTPException))), error)
    wrapped = any(isinstance(one, HTTPError) for one in chain)
    said = _said(found, wrapped=wrapped, all_of_it=" ".join(map(str, chain)))
    return f"the proxy: {said}" if any(isinstance(one, ProxyError) for one in chain) else said


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised for, the outermost first."""
    one: BaseException | None = error
    for _ in range(_DEEPEST):
        if one is None:
            return
        yield one
        inner = [
            value for value in (*one.args, one.__cause__, one.__context__) if isinstance(value, BaseException)
        ]
        one = inner[0] if inner else None


def _said(error: BaseException, *, wrapped: bool, all_of_it: str) -> str:
    if isinstance(error, socket.gaierror):
        # The system's error knows no name; urllib3's text has it.
        name = re.search(r"resolve '([^']+)'", all_of_it)
        return f"the name {name[1]} cannot be resolved" if name else "its name cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_bare(str(error))}"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.BadStatusLine):
        return "what it answers is no HTTP"
    if isinstance(error, TimeoutError) and (wrapped or error.errno is not None):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return _bare(str(getattr(error, "reason", "") or error)) or type(error).__name__


def _bare(text: str) -> str:
    """Without numbers and places in the source, on one line."""
    return re.sub(r"^\[[^\]]*\] |^TLS/SSL |\(?_ssl\.c:\d+\)?:? ?", "", " ".join(text.split())).strip()
