"""torchrun's flags that have no meaning here. They are taken, so that a torchrun line can be reused as it is,
and each says once why it changes nothing. The list is torch/distributed/run.py's of PyTorch 2.15; torchrun's
other flags are torchnet's own.
"""

from __future__ import annotations

from dataclasses import dataclass

_RENDEZVOUS = "torchnet's workers find each other over the backend network by themselves"
_ALL_NODES = "one torchnet launch starts all nodes"
_FILES = "torchnet shows every rank's lines with its prefix, and --log-dir keeps them whole"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A flag of torchrun's: its name, why it is not needed, and whether it stands alone."""

    flag: str
    reason: str
    switch: bool = False

    @property
    def parameter(self) -> str:
        """Its name among typer's parameters."""
        return "torchrun" + self.flag.replace("-", "_")


FOREIGN = (
    Foreign("--rdzv-backend", _RENDEZVOUS),
    Foreign("--rdzv-endpoint", _RENDEZVOUS),
    Foreign("--rdzv-id", "the run's name is --run-id"),
    Foreign("--rdzv-conf", _RENDEZVOUS),
    Foreign("--node-rank", _ALL_NODES),
    Foreign("--master-addr", "it is rank 0's address on the backend network"),
    Foreign("--master-port", "it is chosen for each attempt, from the documented range"),
    Foreign("--local-addr", "it is the worker's own address on the backend network"),
    Foreign("--monitor-interval", "an ended process is noticed at once, without polling"),
    Foreign("--start-method", "every process is started afresh, as torchrun does with a script"),
    Foreign("--event-log-handler", "torchnet's events are its lines and the receipt (--json)"),
    Foreign("--role", "all workers have one role, default"),
    Foreign("--run-path", "every process runs the script in a Python of its own", switch=True),
    Foreign("--log-line-prefix-template", _FILES),
    Foreign("--local-ranks-filter", "the console's filter is --ranks, by global rank"),
    Foreign("--duplicate-stdout-filters", _FILES),
    Foreign("--duplicate-stderr-filters", _FILES),
    Foreign("--logs-specs", _FILES),
    Foreign("--numa-binding", "the processes are left to the kernel's scheduler"),
    Foreign(
        "--signals-to-handle", "the script gets SIGTERM, whichever of SIGTERM, SIGINT and SIGHUP torchnet got"
    ),
    Foreign("--shutdown-timeout", "the time from SIGTERM to SIGKILL is --grace"),
    Foreign("--virtual-local-rank", "LOCAL_RANK is the process's number on its node", switch=True),
)


def warnings(given: dict[str, object]) -> list[str]:
    """A line for each of these flags among typer's parameters ``given``."""
    return [
        f"{one.flag} is not needed and changes nothing here: {one.reason}"
        for one in FOREIGN
        if given.get(one.parameter)
    ]
