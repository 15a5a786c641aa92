"""The exceptions that torchnet raises deliberately, and their exit codes.

    TorchnetError              70  internal error (a defect), and the base of the others
    ├── UsageError              2  invalid flag, file or script
    ├── ClusterError            3  the API server is unreachable or denies the request
    └── NetworkError            4  discovery, rendezvous, preflight; network namespaces denied
        ├── RefusedError        4  permanent, retrying does not help; names the mechanism and one fix
        ├── StatusError         4  the network-status annotation is unreadable
        └── NotYetError         -  temporary, retry in some seconds; holds the error to report when time runs out

A job that has started ends with a ``Failure`` (torchnet.agent.events) instead of an exception: the script's exit code,
a lost link or worker, a timeout, or a backend share below --min-share.
"""

from __future__ import annotations


class TorchnetError(Exception):
    """Base class of all errors.

    Attributes:
        text: What happened.
        fix: The next command or step, printed on a separate line; "" for none.
    """

    exit_code = 70

    def __init__(self, text: str, *, fix: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.text}\n  fix: {self.fix}" if self.fix else self.text


class UsageError(TorchnetError):
    exit_code = 2


class ClusterError(TorchnetError):
    exit_code = 3


class NetworkError(TorchnetError):
    exit_code = 4


class RefusedError(NetworkError):
    pass


class StatusError(NetworkError):
    pass


class NotYetError(NetworkError):
    """The requested information is not available yet: retry in ``seconds``, or raise ``error`` to give up."""

    def __init__(self, error: TorchnetError, seconds: float) -> None:
        super().__init__(error.text, fix=error.fix)
        self.error = error
        self.seconds = seconds
