"""Every error that torchnet raises on purpose, and the exit code of each.

    TorchnetError              70  torchnet's own error (a defect, or the base of the others)
    ├── UsageError              2  a flag, a file or a script that cannot be used as given
    ├── NetworkError            4  the network: discovery, join, preflight, namespaces refused, backend lost
    │   ├── RefusedError        4  the kernel refused namespaces; names the mechanism and one fix
    │   └── StatusError         4  the network-status annotation cannot be read
    ├── ShareError              5  the backend carried less than ``--min-share``
    ├── LostWorkerError        70  a worker's agent vanished
    └── DeadlineError         124  a time-out that was asked for ran out

A failing script has no class here: its own exit code is handed on as it is.
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


class NetworkError(TorchnetError):
    exit_code = 4


class RefusedError(NetworkError):
    pass


class StatusError(NetworkError):
    pass


class ShareError(TorchnetError):
    exit_code = 5


class LostWorkerError(TorchnetError):
    exit_code = 70


class DeadlineError(TorchnetError):
    exit_code = 124
