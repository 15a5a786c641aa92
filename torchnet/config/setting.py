"""Definition of one setting; `torchnet.config.settings` lists all of them."""

from __future__ import annotations

from dataclasses import dataclass

from torchnet.constants import ENV_PREFIX

JOB, NETWORK, RUN, TUNE, OUTPUT = "Job", "Network", "Run", "Tuning", "Output"
KUBERNETES = "Kubernetes"
GROUPS = (JOB, NETWORK, RUN, TUNE, OUTPUT, KUBERNETES)
HERE = "here"
PLACES = ("local", "hosts", "kubernetes")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the job.

    Attributes:
        path: Path in `JobSpec` and in a TOML file (``network.rate``).
        flag: Option of the command line; "" if there is none (the script and its arguments).
        help: Text for ``--help``.
        valid: Valid values, for the "valid: …" of an error.
        default: Default value, for ``--help``.
        switch: Whether the flag takes no value.
        repeat: Whether the flag may repeat.
        is_path: Whether the value is a path; in a file, a relative path is relative to that file.
        only: The one of `PLACES` that the field applies to; "" for all; "here" for local and hosts.
        keyed: Whether the field shares one flag with the others of its table, as in ``--tune KEY=VALUE``.
        former_flag: An earlier name of the flag, which is accepted but not shown; "" if there is none.
        former_path: The same for the path.
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
    former_flag: str = ""
    former_path: str = ""

    def applies(self, place: str) -> bool:
        """Return whether the field has an effect in ``place``."""
        return self.only in ("", place) or (self.only == HERE and place != "kubernetes")

    @property
    def places(self) -> str:
        """The values of --on with which the field has an effect."""
        return " or ".join(place for place in PLACES if self.applies(place))

    @property
    def group(self) -> str:
        """The heading in ``--help`` that lists the field."""
        table = {"network": NETWORK, "run": RUN, "tune": TUNE, "output": OUTPUT, "kubernetes": KUBERNETES}
        return table.get(self.path.partition(".")[0], JOB) if "." in self.path else JOB

    @property
    def env(self) -> str:
        """The variable, such as ``TORCHNET_RATE`` for ``--rate``; "" if only the command line and files set it."""
        if not self.flag or self.path == "env":
            return ""
        return _variable(self.path.replace(".", "_") if self.keyed else self.flag)

    @property
    def former_env(self) -> str:
        """The variable of the earlier flag; "" if there is none."""
        return _variable(self.former_flag) if self.former_flag else ""

    @property
    def key(self) -> str:
        """The field's name in ``--tune KEY=VALUE``, and in the table of a file."""
        return self.path.rpartition(".")[2]

    @property
    def typed_path(self) -> str:
        """The path that a value on the command line belongs to: the field's, or its table's if it is keyed."""
        return self.path.rpartition(".")[0] if self.keyed else self.path

    @property
    def attribute(self) -> tuple[str, ...]:
        """The attribute names that lead from a `JobSpec` to the value."""
        # `json` is a method of pydantic's models, and `kind` alone says too little in the code.
        names = {"json": "json_path", "kind": "workload"}
        return tuple(names.get(part, part) for part in self.path.split("."))


def _variable(flag: str) -> str:
    return ENV_PREFIX + flag.lstrip("-").replace("-", "_").upper()
