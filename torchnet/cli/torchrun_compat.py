"""Accept torchrun's flags that torchnet does not have, so that a torchrun line can be reused; read PET_* variables.

Source:
    torch/distributed/run.py of PyTorch 2.15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchnet.config.parsing import parse_label, parse_whole
from torchnet.config.settings import BY_PATH, FIELDS
from torchnet.errors import UsageError
from torchnet.text import listed, printable

if TYPE_CHECKING:
    from torchnet.config.job_spec import JobSpec
    from torchnet.config.resolution import Resolved

_RENDEZVOUS = "torchnet's workers discover each other over the backend network"
_GRACE = "--shutdown-timeout"
_LOG_FILES = "--log-dir writes the lines of each rank to files"


@dataclass(frozen=True, slots=True)
class TorchrunFlag:
    """A flag of torchrun that torchnet does not have.

    Attributes:
        flag: The flag, written with dashes.
        reason: Reason, for the warning about the flag; "" for no warning, since the flag is rejected or sets a field.
        effect: Whether the flag has an effect in torchrun but not in torchnet.
        switch: Whether the flag takes no value.
        on_hosts: The reason for a job on several hosts, where the flag has an effect in torchrun; "" for the same.
    """

    flag: str
    reason: str
    effect: bool = False
    switch: bool = False
    on_hosts: str = ""

    @property
    def parameter(self) -> str:
        """The name of the typer parameter."""
        return "torchrun" + self.flag.replace("-", "_")

    def notice(self, place: str) -> str:
        """Return the warning that is printed if the flag is given for a job in ``place``."""
        reason = self.on_hosts if place == "hosts" else ""
        what = "has no effect in torchnet" if self.effect or reason else "is not needed and has no effect"
        return f"{self.flag} {what}: {reason or self.reason}"


TORCHRUN_FLAGS = (
    TorchrunFlag("--rdzv-backend", _RENDEZVOUS),
    TorchrunFlag("--rdzv-endpoint", _RENDEZVOUS),
    TorchrunFlag(
        "--rdzv-conf",
        "--start-timeout sets the time limit for all workers to join",
        effect=True,
        on_hosts="the host with the endpoint's address is node 0 (is_host); --start-timeout sets the time limit",
    ),
    TorchrunFlag("--node-rank", "one torchnet launch starts all nodes"),
    TorchrunFlag("--master-addr", "it is rank 0's address on the backend network"),
    TorchrunFlag("--master-port", "torchnet selects it for each attempt, from the documented range"),
    TorchrunFlag(
        "--local-addr",
        "it is the worker's own address on the backend network",
        on_hosts="scripts meet at node 0's address on the backend; --network host:NETWORK/LENGTH chooses it",
    ),
    TorchrunFlag("--monitor-interval", "torchnet detects the end of a process at once, without polling"),
    TorchrunFlag("--start-method", "every process is a new one, as in torchrun with a script"),
    TorchrunFlag(
        "--event-log-handler", "torchnet has no event handlers; --json FILE writes the receipt", effect=True
    ),
    TorchrunFlag("--run-path", "every process runs the script in a separate Python", switch=True),
    TorchrunFlag(
        "--duplicate-stdout-filters", f"torchnet writes no filtered copy; {_LOG_FILES}", effect=True
    ),
    TorchrunFlag(
        "--duplicate-stderr-filters", f"torchnet writes no filtered copy; {_LOG_FILES}", effect=True
    ),
    TorchrunFlag("--logs-specs", f"torchnet loads no LogsSpecs; {_LOG_FILES}", effect=True),
    TorchrunFlag(
        "--numa-binding",
        "torchnet does not bind processes to CPUs, as torchrun without this flag",
        effect=True,
    ),
    TorchrunFlag(_GRACE, ""),
)
# Flags that torchrun and torchnet share.
COMMON_FLAGS = (
    "--nnodes",
    "--nproc-per-node",
    "--standalone",
    "--max-restarts",
    "--module",
    "--no-python",
    "--log-dir",
    "--redirects",
    "--tee",
    "--rdzv-id",
    "--role",
    "--virtual-local-rank",
    "--signals-to-handle",
    "--local-ranks-filter",
    "--log-line-prefix-template",
)
SETS_FIELD = {"run_id": "--rdzv-id", "run.grace": _GRACE}
_BY_FLAG = {one.flag: one for one in TORCHRUN_FLAGS}
_OWN_FLAGS = {field.flag for field in FIELDS}
# Variables of torchrun's agent, each with the values that have an effect there ("": any), and why not here.
UNSUPPORTED = {
    "TORCHELASTIC_ENABLE_FILE_TIMER": (
        "1",
        "torchnet runs no timer server, and sets no TORCHELASTIC_TIMER_FILE",
    ),
    "TORCHELASTIC_HEALTH_CHECK_PORT": ("", "torchnet runs no health check server"),
    "TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT": (
        "",
        "torchnet does not restart workers that hang in the kernel; --stall-timeout sees that a job makes no progress",
    ),
    "TORCH_ELASTIC_WORKER_IDENTICAL": ("1", "torchnet's workers always have the same number of processes"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a flag.

    Attributes:
        value: The value as text.
        shown: How it was given: ``--node-rank 1`` or ``PET_NODE_RANK=1``.
    """

    value: str
    shown: str


def full_flag(name: str) -> str:
    """Return the flag that ``name`` abbreviates, both without dashes, as argparse does for torchrun; else ``name``."""
    flags = [flag.removeprefix("--") for flag in (*COMMON_FLAGS, *_BY_FLAG)]
    found = [flag for flag in flags if flag.startswith(name)]
    known = name in flags or f"--{name}" in _OWN_FLAGS or len(name) < 2
    return found[0] if len(found) == 1 and not known else name


def variable(flag: str) -> str:
    """Return the environment variable that torchrun reads for ``flag`` (torch/distributed/argparse_util.py)."""
    return "PET_" + flag.removeprefix("--").replace("-", "_").upper()


def setting(flag: str, values: Mapping[str, object], environ: Mapping[str, str]) -> Setting | None:
    """Return a flag from the command line, else from its variable, as torchrun does; None if not given or empty."""
    typed = values.get(_BY_FLAG[flag].parameter)
    if typed is None:
        return from_variable(flag, environ)
    shown = flag if typed is True else f"{flag} {printable(str(typed), 80)}"
    return Setting(str(typed), shown) if typed else None


def from_variable(flag: str, environ: Mapping[str, str]) -> Setting | None:
    """Return the flag from its PET_* variable; None if that is not set or empty."""
    text = environ.get(variable(flag))
    return Setting(text, f"{variable(flag)}={printable(text, 80)}") if text else None


def whole(given: Setting) -> int:
    """Return the value as a non-negative integer.

    Raises:
        UsageError: It is not one.
    """
    try:
        number = parse_whole(given.value)
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"{given.shown} is not a non-negative whole number", fix="torchnet launch --help")
    return number


def as_fields(values: Mapping[str, object]) -> dict[str, object]:
    """Return the job's fields, by path, that torchrun's flags set.

    Args:
        values: Values of typer's parameters.

    Raises:
        UsageError: A value is invalid.
    """
    timeout = setting(_GRACE, values, {})
    return {} if timeout is None else {"run.grace": whole(timeout)}


# torchrun's flags that say where the nodes are; on several hosts they have their effect.
OF_HOSTS = ("--rdzv-backend", "--rdzv-endpoint", "--node-rank", "--master-addr", "--master-port")


def from_variables(
    values: Mapping[str, object], typed: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, object]:
    """Return the job's fields, by path, that PET_* variables set; flags and TORCHNET_* variables override them.

    Args:
        values: Values of typer's parameters.
        typed: Fields that torchnet's own flags set on the command line.
        environ: Environment variables.

    Raises:
        UsageError: A value is invalid.
    """
    if (values.get("on") or environ.get("TORCHNET_ON")) == "kubernetes":
        return {}  # they describe this process's host
    own = {field.flag: field for field in FIELDS}
    found: dict[str, object] = {}
    for flag in COMMON_FLAGS:
        field = own[flag]
        given = from_variable(flag, environ)
        if given is None or field.path in typed or environ.get(field.env):
            continue
        if field.switch:
            if given.value != "0":
                found[field.path] = True
        else:
            found[field.path] = given.value
    timeout = from_variable(_GRACE, environ)
    if timeout is not None and "run.grace" not in typed and not environ.get(BY_PATH["run.grace"].env):
        found["run.grace"] = whole(timeout)
    if {"nnodes", "standalone"} & typed.keys():
        found.pop("nnodes", None)
        found.pop("standalone", None)
    elif "standalone" in found:
        found.pop("nnodes", None)
    return found


def run_id(job: JobSpec) -> str:
    """Return the run's name from the job's ``rdzv_id``; "" if it is missing or yields no valid name."""
    if not job.rdzv_id:
        return ""
    text = job.rdzv_id
    if job.on != "kubernetes":  # there, other names of objects could be in use
        text = re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-")
    try:
        name = parse_label(text)
    except ValueError:
        return ""
    if job.on == "kubernetes":
        from torchnet.config.kubernetes import find_run_id_problems

        if find_run_id_problems(name, job.kubernetes.form, job.nnodes):
            return ""
    return name


def warnings(
    values: Mapping[str, object], typed: Mapping[str, object], resolved: Resolved, environ: Mapping[str, str]
) -> list[str]:
    """Return one warning for each torchrun flag without effect, and one for all ignored PET_* variables.

    Args:
        values: Values of typer's parameters.
        typed: Fields that torchnet's own flags set on the command line.
        resolved: The resolved job.
        environ: Environment variables.
    """
    used = OF_HOSTS if resolved.job.on == "hosts" else ()
    lines = [
        one.notice(resolved.job.on)
        for one in TORCHRUN_FLAGS
        if one.reason and one.flag not in used and values.get(one.parameter)
    ]
    lines += [
        f"{name} has no effect: {why}"
        for name, (value, why) in UNSUPPORTED.items()
        if (given := environ.get(name)) and given == (value or given)
    ]
    if setting(_GRACE, values, {}) is not None and "run.grace" in typed:
        lines.append("--shutdown-timeout has no effect: --grace overrides it")
    return lines + _ignored_variables(values, resolved, environ)


def _ignored_variables(
    values: Mapping[str, object], resolved: Resolved, environ: Mapping[str, str]
) -> list[str]:
    from torchnet.config.sources import DEFAULT

    own = {field.flag: field for field in FIELDS}
    names, words = [], []
    used = OF_HOSTS if resolved.job.on == "hosts" else ()
    for flag in (*COMMON_FLAGS, *_BY_FLAG):
        given = None if flag in used else from_variable(flag, environ)
        switch = own[flag].switch if flag in own else _BY_FLAG[flag].switch
        if given is None or (switch and given.value == "0"):
            continue
        path = own[flag].path if flag in own else "run.grace" if flag == _GRACE else None
        if path is not None and resolved.origins[path].layer != DEFAULT:
            continue
        if flag not in own and values.get(_BY_FLAG[flag].parameter) is not None:
            continue
        names.append(variable(flag))
        if flag in own or flag in SETS_FIELD.values():
            words.append(flag if switch else f"{flag} {printable(given.value, 80)}")
    if not names:
        return []
    return [
        f"torchnet ignores PET_* variables: {listed(names, len(names))}"
        + (f"; use {' '.join(words)}" if words else "")
    ]
