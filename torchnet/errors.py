"""Every error that torchnet raises on purpose, and the exit code of each.

    TorchnetError              70  torchnet's own error (a defect, or the base of the others)
    ├── UsageError              2  a flag, a file or a script that cannot be used as given
    ├── ClusterError            3  the API server cannot be reached, or forbids what is asked
    └── NetworkError            4  the network: discovery, join, preflight, namespaces refused
        ├── RefusedError        4  refused for good: no waiting mends it; names the mechanism and one fix
        ├── StatusError         4  the network-status annotation cannot be read
        └── NotYetError         -  ask again in some seconds; what it holds is the error when there is no time left

What ends a job that has begun is no exception but a ``Failure`` (torchnet.agent.events): a script's own exit code, a
lost link or worker, a time-out, a share that was not reached.
"""

from __future__ import annotations


class TorchnetError(Exception):
    """Base of all. ``fix`` is the next command or step, printed on a line of its own."""

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
    """What was asked for may come with time: ask again in ``seconds``, or give up with ``error``."""

    def __init__(self, error: TorchnetError, seconds: float) -> None:
        super().__init__(error.text, fix=error.fix)
        self.error = error
        self.seconds = seconds
