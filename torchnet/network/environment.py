"""A process's environment: the table of variables.py filled in, and merged with what the user set.

Pure: everything that has to be looked up (devices, addresses, whether libuv is there) is an input. A variable
is ``owned`` where a value left over from elsewhere would break the job, as a stale MASTER_ADDR in a shell
would: torchnet sets those always. All others are defaults: what the user set wins, with a warning.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from torchnet.network.text import printable
from torchnet.network.variables import RULES, EnvironmentInputs, Variable

__all__ = ["EnvironmentInputs", "Variable", "build", "covering_prefix", "explain", "merge"]

# Not set by torchnet, but known to undo what it sets.
_HAZARDS = {
    "NCCL_COMM_ID": "it overrides which interface NCCL starts on; unset it",
    "NCCL_IB_GID_INDEX": "the right index differs from worker to worker; unset it",
}
# These take exact names; NCCL's notation in them has broken jobs (aws-do-eks#51).
_EXACT = ("GLOO_SOCKET_IFNAME", "TORCHCOMM_GLOO_INTERFACE", "TP_SOCKET_IFNAME")


def build(inputs: EnvironmentInputs) -> tuple[Variable, ...]:
    """The variables of one process, in the table's order; what does not apply to it is left out."""
    pairs = ((rule, rule.value(inputs)) for rule in RULES)
    return tuple(rule.variable(value) for rule, value in pairs if value is not None)


def explain() -> tuple[Variable, ...]:
    """The whole table for documentation: each ``value`` says what the value is, or when it is set."""
    return tuple(rule.variable(rule.example) for rule in RULES)


def merge(
    user_env: Mapping[str, str], variables: Sequence[Variable]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The process's environment, ``user_env`` with ``variables`` put in, and the warnings about it.

    An owned variable replaces the user's value, and one warning lists those; any other gives way to the
    user's value, with a warning each unless the values are equal. The warnings are the same for all ranks
    of a worker, so show them once. Neither argument is changed.
    """
    env = dict(user_env)
    kept = []
    replaced = []
    for variable in variables:
        theirs = user_env.get(variable.name)
        if theirs is None:
            env[variable.name] = variable.value
        elif variable.owned:
            env[variable.name] = variable.value
            if not _is_share(variable, theirs):
                replaced.append(variable.name)
        elif theirs != variable.value:
            follows = _notation(variable.name, theirs) or variable.consequence
            kept.append(
                f"{variable.name}={printable(theirs, 80)} stays as you set it (torchnet would set "
                f"{printable(variable.value, 80)}): {follows}"
            )
    hazards = [
        f"{name}={printable(user_env[name], 80)} is set: {hazard}"
        for name, hazard in _HAZARDS.items()
        if name in user_env
    ]
    if replaced:
        kept.insert(
            0, f"{', '.join(replaced)} of your environment: replaced, torchnet gives each process its own"
        )
    return env, tuple(kept + hazards)


def covering_prefix(networks: Sequence[str]) -> str | None:
    """The smallest network, in CIDR form, that holds all ``networks`` (``ADDRESS/PREFIX`` each).

    For NCCL_IB_ADDR_RANGE, which takes one network. None where there is none that tells anything: mixed
    families, or one so large that link-local addresses are in it, too. Raises ValueError for what is no
    network.
    """
    parsed = [ipaddress.ip_interface(text).network for text in networks]
    if len({network.version for network in parsed}) != 1:
        return None
    first, last = min(n[0] for n in parsed), max(n[-1] for n in parsed)
    bits = 128 if first.version == 6 else 32
    cover = ipaddress.ip_network(f"{first}/{bits - (int(first) ^ int(last)).bit_length()}", strict=False)
    local = ipaddress.ip_network("fe80::/10" if cover.version == 6 else "169.254.0.0/16")
    return None if cover.overlaps(local) else str(cover)


def _is_share(variable: Variable, theirs: str) -> bool:
    """The runtime deals out the GPUs that the user made visible: nothing that the user said was dropped."""
    if variable.name != "CUDA_VISIBLE_DEVICES":
        return False
    visible = {part.strip() for part in theirs.split(",")}
    return not variable.value or set(variable.value.split(",")) <= visible


def _notation(name: str, value: str) -> str:
    if name not in _EXACT:
        return ""
    if value[:1] in ("=", "^"):
        return "'=' and '^' are NCCL's notation; only exact names work here, so the start will fail"
    return "" if value else "empty counts as unset, so the host name's address is taken, which is eth0's"
