"""Refuse torchrun command lines for one of several hosts, and suggest the ``torchnet agent`` line for this host."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from torchnet.agent.spec import FLAGS, flag_of
from torchnet.cli.torchrun_compat import Setting, from_variable, setting, whole
from torchnet.config.settings import BY_PATH
from torchnet.config.sources import DEFAULT, FLAG
from torchnet.errors import UsageError
from torchnet.text import listed, printable

if TYPE_CHECKING:
    from torchnet.config.resolution import Resolved

_NO_FLAG_NEEDED = ("on", "script", "args", "module", "no_python", "nnodes", "nproc_per_node", "standalone")
_AGENT_FLAGS = {flag_of(one) for one in FLAGS}
_AGENT_FIELDS = tuple(
    path for path, field in BY_PATH.items() if field.flag in _AGENT_FLAGS and path not in _NO_FLAG_NEEDED
)


def refuse(values: Mapping[str, object], resolved: Resolved, environ: Mapping[str, str]) -> None:
    """Refuse a command line that, with torchrun, would start only one host's part of a job.

    Args:
        values: Values of typer's parameters.
        resolved: The job as torchnet would run it.
        environ: Environment variables; torchrun's PET_* variables count too.

    Raises:
        UsageError: The line is for one of several hosts; the fix is the line of ``torchnet agent``.
    """
    if values.get("standalone"):
        return  # with --standalone, torchrun reads neither a node rank nor an address
    rank = setting("--node-rank", values, environ)
    addresses = [
        one
        for flag in ("--rdzv-endpoint", "--master-addr")
        if (one := setting(flag, values, environ)) is not None
    ]
    number = whole(rank) if rank is not None else None
    if not number and not addresses:
        return
    nnodes, nnodes_shown = _nnodes(resolved, environ)
    causes = [rank.shown] if rank is not None and number else []
    if nnodes != 1 and addresses:
        causes += [nnodes_shown, *(one.shown for one in addresses)]
    if not causes:
        return
    line, notes = _agent_line(resolved, environ, nnodes, number, addresses)
    raise UsageError(
        f"{listed(causes, len(causes))}: with torchrun, this command starts one node on each host; torchnet launch "
        "starts all nodes itself, so each host would run a separate, complete job",
        fix="\n".join(
            [
                "run this command on this host, and on each other host with its --node-rank:",
                f"    {line}",
                *(f"    {note}" for note in notes),
                "    To start all nodes with one command instead, run torchnet launch once without these settings, "
                "locally or with --on kubernetes.",
            ]
        ),
    )


def _nnodes(resolved: Resolved, environ: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the number of nodes (None for a range MIN:MAX) and how it was given; torchrun's default is 1."""
    origin = resolved.origins["nnodes"]
    if origin.layer != DEFAULT:
        count = resolved.job.nnodes
        return (
            count,
            f"{origin.where} {count}" if origin.layer == FLAG else f"{origin.where} (nnodes {count})",
        )
    given = from_variable("--nnodes", environ)
    if given is None:
        return 1, ""
    low, _, high = given.value.partition(":")
    counts = {whole(Setting(text, given.shown)) for text in (low, high or low)}
    return counts.pop() if len(counts) == 1 else None, given.shown


def _agent_line(
    resolved: Resolved,
    environ: Mapping[str, str],
    nnodes: int | None,
    node_rank: int | None,
    addresses: list[Setting],
) -> tuple[str, list[str]]:
    """Return the shell command, and notes that explain its placeholders and list the settings it omits."""
    job = resolved.job
    address = _literal(addresses[0].value) if addresses else ""
    notes = ["SECRET: a random string, the same on all hosts (openssl rand -hex 16)"]
    near = f"the network of {address}" if address else "the backend network"
    notes.append(f"IFNAME: the interface of the host on {near}, such as net1")

    def or_placeholder(value: object, placeholder: str, note: str) -> str:
        if value in (None, ""):
            notes.append(f"{placeholder}: {note}")
            return placeholder
        return str(value)

    if nnodes is not None and nnodes <= (node_rank or 0):
        nnodes = None
    named = f" of {printable(addresses[0].value, 80)}" if addresses else ""
    words = ["torchnet", "agent"]
    words += ["--nnodes", or_placeholder(nnodes, "NNODES", "the number of hosts")]
    words += ["--node-rank", or_placeholder(node_rank, "NODE_RANK", "0, 1, 2, …, different on each host")]
    nproc = _nproc(resolved, environ)
    count = nproc if nproc.isdecimal() else None
    words += [
        "--nproc-per-node",
        or_placeholder(count, "NPROC", f"the number of processes on this host ({nproc})"),
    ]
    words += ["--address-source", "host:IFNAME"]
    words += [
        "--rank0",
        or_placeholder(address, "ADDRESS", f"the IP address{named} on IFNAME of node rank 0"),
    ]
    words += _fields(resolved)
    words += ["--module"] if job.module else ["--no-python"] if job.no_python else []
    if missing := _missing(resolved):
        notes.append(f"torchnet agent does not support {listed(missing, len(missing))}")
    return f"TORCHNET_TOKEN=SECRET {' '.join(map(_quote, [*words, job.script, *job.args]))}", notes


def _quote(word: str) -> str:
    """Quote for a shell; unprintable characters become escapes in $'…' (bash, zsh, and POSIX since 2024)."""
    if word.isprintable():
        return shlex.quote(word)
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted) + "'"


def _nproc(resolved: Resolved, environ: Mapping[str, str]) -> str:
    """Return the number of processes as torchrun reads it: from the flag, else the variable, else 1."""
    if resolved.origins["nproc_per_node"].layer != DEFAULT:
        return str(resolved.job.nproc_per_node)
    given = from_variable("--nproc-per-node", environ)
    return printable(given.value, 80) if given is not None else "1"


def _literal(endpoint: str) -> str:
    """Return the IP address in HOST[:PORT], or "" if it is a name, or an address that other hosts cannot reach."""
    host = endpoint
    if endpoint.startswith("["):
        host = endpoint[1:].partition("]")[0]
    elif endpoint.count(":") == 1:
        host = endpoint.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return "" if address.is_loopback or address.is_link_local or address.is_unspecified else str(address)


def _fields(resolved: Resolved) -> Iterator[str]:
    for path in _AGENT_FIELDS:
        if resolved.origins[path].layer != DEFAULT:
            value = attrgetter(".".join(BY_PATH[path].attribute))(resolved.job)
            if value is not False:
                yield BY_PATH[path].flag
            if not isinstance(value, bool):
                yield f"{value:g}" if isinstance(value, float) else str(value)


def _missing(resolved: Resolved) -> list[str]:
    """Return the flags of all settings, including those of files and variables, that `torchnet agent` lacks."""
    given = [path for path, origin in resolved.origins.items() if origin.layer != DEFAULT]
    paths = dict.fromkeys("env" if path.startswith("env.") else path for path in given)
    flags = (BY_PATH[path].flag for path in paths if path not in (*_AGENT_FIELDS, *_NO_FLAG_NEEDED))
    return list(dict.fromkeys(flags))
