"""This process's place in the job, from the environment variables of torchrun, which torchnet sets, too.

Source:
    torch/distributed/rendezvous.py (env://), torch/distributed/elastic/agent/server/local_elastic_agent.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.errors import UsageError
from torchnet.text import printable

REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """A process in its job; ``local_rank`` is None without LOCAL_RANK, ``address`` and ``port`` are the store's."""

    rank: int
    world_size: int
    local_rank: int | None
    local_world_size: int
    node_rank: int
    address: str
    port: int
    attempt: int
    agent_store: bool
    libuv: bool


def read(environ: Mapping[str, str]) -> World | None:
    """Read ``environ``; return None if RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are all unset.

    Raises:
        UsageError: some of the four are missing, or a value is invalid; names all such variables.
    """
    # torch, too, treats an empty value as unset.
    missing = [name for name in REQUIRED if not environ.get(name)]
    if len(missing) == len(REQUIRED):
        return None
    problems = [f"{name} is not set" for name in missing]
    world_size = _number(environ, "WORLD_SIZE", 1, None, problems)
    rank = _number(environ, "RANK", 0, None if world_size is None else world_size - 1, problems)
    local_world_size = _number(environ, "LOCAL_WORLD_SIZE", 1, world_size, problems)
    local_rank = _number(
        environ, "LOCAL_RANK", 0, None if local_world_size is None else local_world_size - 1, problems
    )
    port = _number(environ, "MASTER_PORT", 0 if world_size == 1 else 1, 65535, problems)
    node_rank = _number(environ, "GROUP_RANK", 0, None, problems)
    attempt = _number(environ, "TORCHELASTIC_RESTART_COUNT", 0, None, problems)
    address = environ.get("MASTER_ADDR", "")
    if address.startswith("["):
        problems.append(f"MASTER_ADDR is {printable(address)}: brackets belong in URLs, not here")
    if problems:
        found = ", ".join(f"{name}={printable(environ[name], 80)}" for name in REQUIRED if environ.get(name))
        raise UsageError(
            f"the distributed group cannot be set up: {'; '.join(problems)} (set: {found})",
            fix="start the script with `torchnet launch` or torchrun, which set them all; for one process, unset them",
        )
    assert rank is not None
    assert world_size is not None
    assert port is not None
    per_node = local_world_size or (local_rank or 0) + 1
    return World(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        local_world_size=per_node,
        node_rank=rank // per_node if node_rank is None else node_rank,
        address=address,
        port=port,
        attempt=attempt or 0,
        agent_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        libuv=environ.get("USE_LIBUV", "1") == "1",
    )


def _number(
    environ: Mapping[str, str], name: str, least: int, most: int | None, problems: list[str]
) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        most_text = "" if most is None else f" to {most}" if most > least else " alone"
        wanted = f"{least}{most_text}" if most is not None else f"{least} or more"
        problems.append(f"{name} is {printable(text, 80)}, not a whole number, {wanted}")
        return None
    return number
