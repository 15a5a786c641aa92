"""One field of the job, as `torchnet.config.fields` lists them."""

from __future__ import annotations

from dataclasses import dataclass

from torchnet.constants import ENV_PREFIX

JOB, NETWORK, RUN, TUNE, OUTPUT = "The job", "The network", "The run", "Tuning", "Output"
KUBERNETES = "Kubernetes"
GROUPS = (JOB, NETWORK, RUN, TUNE, OUTPUT, KUBERNETES)
PLACES = ("local", "kubernetes")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the job.

    ``path`` is its place in `JobSpec` and in a TOML file (``network.rate``); ``flag`` is empty where the
    command line has no option for it (the script and its arguments); ``valid`` ends an error's "valid: …".
    ``only`` is the one of `PLACES` that it has a meaning for, "" for both.
    """

    path: str
    flag: str
    help: str
    valid: str
    default: str = ""
    metavar: str = "TEXT"
    short: str = ""
    switch: bool = False
    repeat: bool = False
    is_path: bool = False
    only: str = ""

    @property
    def group(self) -> str:
        """The heading of ``--help`` under which it stands."""
        table = {"network": NETWORK, "run": RUN, "tune": TUNE, "output": OUTPUT, "kubernetes": KUBERNETES}
        return table.get(self.path.partition(".")[0], JOB) if "." in self.path else JOB

    @property
    def env(self) -> str:
        """``TORCHNET_RATE`` for ``--rate``; empty for what only the command line and files can say."""
        if not self.flag or self.path == "env":
            return ""
        return ENV_PREFIX + self.flag.lstrip("-").replace("-", "_").upper()

    @property
    def attribute(self) -> tuple[str, ...]:
        """The attributes that lead to the value from a `JobSpec`."""
        # Pydantic's models have a method `json` of their own.
        return tuple("json_path" if part == "json" else part for part in self.path.split("."))
