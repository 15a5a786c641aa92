"""The exceptions that torchnet raises deliberately, and their exit codes.

    TorchnetError              70  internal error (a defect), and the base of the others
    ├── UsageError              2  invalid flag, file or script
    ├── ClusterError            3  the API server is unreachable or denies the request
    ├── NetworkError            4  discovery, rendezvous, preflight, a lost link; network namespaces denied
    │   ├── RefusedError        4  permanent, retrying does not help; names the mechanism and one fix
    │   ├── StatusError         4  the network-status annotation is unreadable
    │   └── NotYetError         -  temporary, retry in some seconds; holds the error to report when time runs out
    └── JobError                -  a job that has started failed: its exit code
        ├── ScriptError         -  the exit code of the first rank that failed
        ├── MinShareError       5  the backend carried less than min_share
        ├── LostWorkerError    70  a worker ended without a result
        ├── JobTimeoutError   124  timeout, start_timeout, or a stall with stall_action="stop"
        └── JobStoppedError     -  a signal stopped it: 128 and the signal's number

Only :func:`torchnet.launch` raises a JobError. Everywhere else, a job that has started ends with a ``Failure``
(torchnet.agent.events) and an exit code.
"""

from __future__ import annotations

from typing import Any


class TorchnetError(Exception):
    """Base class of all errors.

    Attributes:
        text: What happened.
        fix: The next command or step, printed on a separate line; "" for none.
        receipt: From :func:`torchnet.launch`, if the job has started: its receipt, a
            `torchnet.receipt.receipt_model.Receipt`.
    """

    exit_code = 70
    receipt: Any = None

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


class JobError(TorchnetError):
    """A job that has started failed.

    Attributes:
        exit_code: The exit code of ``torchnet launch``.
        rank: The rank that failed first; None if the failure is not one rank's.
        node: The worker that failed first; None if unknown.
    """

    def __init__(
        self, text: str, *, exit_code: int, rank: int | None = None, node: str | None = None, fix: str = ""
    ) -> None:
        super().__init__(text, fix=fix)
        self.exit_code = exit_code
        self.rank = rank
        self.node = node


class ScriptError(JobError):
    pass


class MinShareError(JobError):
    pass


class LostWorkerError(JobError):
    pass


class JobTimeoutError(JobError):
    pass


class JobStoppedError(JobError):
    pass
