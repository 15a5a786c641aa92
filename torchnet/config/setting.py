"""One field of the job, as `torchnet.config.settings` lists them."""

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
    ``only`` is the one of `PLACES` that it has a meaning for, "" for both. The fields of a table that are ``keyed``
    share one flag, as in ``--tune KEY=VALUE``.
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
    keyed: bool = False

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
        name = self.path.replace(".", "_") if self.keyed else self.flag.lstrip("-").replace("-", "_")
        return ENV_PREFIX + name.upper()

    @property
    def key(self) -> str:
        """Its name in ``--tune KEY=VALUE``, which is its name in the table of a file, too."""
        return self.path.rpartition(".")[2]

    @property
    def typed_path(self) -> str:
        """What the command line's value is for: the field, or the table whose fields share the flag."""
        return self.path.rpartition(".")[0] if self.keyed else self.path

    @property
    def attribute(self) -> tuple[str, ...]:
        """The attributes that lead to the value from a `JobSpec`."""
        # Pydantic's models have a method `json` of their own.
        return tuple("json_path" if part == "json" else part for part in self.path.split("."))
