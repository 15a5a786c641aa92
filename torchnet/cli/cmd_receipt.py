"""``torchnet receipt -- COMMAND``: observe any command on this host, and report which network carried its bytes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchnet.cli.entry_point import emit, say
from torchnet.cli.typer_parameters import PlainCommand
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.network.host_networks import HostNetwork
    from torchnet.witness.host_record import HostRecord

HELP = """\
Run COMMAND on this host, and report which network carried its bytes.

\b
torchnet receipt --network host:ens5 -- torchrun --nnodes 2 … train.py
torchnet receipt merge host-a.json host-b.json

The command keeps its environment, streams and exit code. The receipt is printed on stderr. With merge: join the JSON
files of several hosts into one receipt.
"""
NETWORK = (
    "The backend of this host: interfaces (host:ens5), a network (host:10.10.0.0/16) or RDMA devices (rdma:mlx5_0). "
    "Repeatable."
)
PEERS = "Names or addresses of the other hosts, separated by commas. [members of the backend's networks]"
HEADINGS = ("process", "host:pid", "with", "over", "sent", "received")
JSON = "Write the receipt as JSON to this file."
_LIMIT = 64 << 20  # bytes of a file
_SHOWN = 16  # connections
_MERGES = "torchnet.receipt.merges"  # key in click's context.meta


class _Command(PlainCommand):
    """Stops at the command's name, and recognises ``merge`` only as the first word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        merges = args[:1] == ["merge"]
        ctx.allow_interspersed_args = merges  # a command has options of its own
        words = super().parse_args(ctx, args[1:] if merges else args)
        ctx.meta[_MERGES] = merges
        return words


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "receipt",
        cls=_Command,
        help=HELP,
        short_help="Report which network carried the bytes of any command on this host.",
        options_metavar="[FLAGS] -- COMMAND [ARGS]...",
        context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
    )(_receipt)


def _receipt(
    context: typer.Context,
    network: Annotated[list[str] | None, typer.Option("--network", metavar="NETWORK", help=NETWORK)] = None,
    peers: Annotated[list[str] | None, typer.Option("--peers", metavar="HOST,…", help=PEERS)] = None,
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON)] = None,
) -> None:
    words = list(context.args)
    if context.meta.get(_MERGES):
        if network or peers:
            raise UsageError("merge takes neither --network nor --peers: the files contain them")
        context.obj.action = partial(merge, words, json_path)
    else:
        context.obj.action = partial(run, words, network or (), peers or (), json_path)


def run(words: list[str], networks: Sequence[str], peers: Sequence[str], json_path: str | None) -> int:
    """Run the command and print its receipt.

    Returns:
        The command's exit code.
    """
    from torchnet.console import files
    from torchnet.witness.host_receipt import receipt_of
    from torchnet.witness.observation import ObservationError, observe, resolve_peers

    if not words:
        raise UsageError("no command", fix="torchnet receipt --network host:INTERFACE -- COMMAND")
    if words[0] == "merge" and shutil.which("merge") is None:
        raise UsageError("merge must be the first word", fix="torchnet receipt merge FILE… --json FILE")
    if json_path == "-":
        raise UsageError("--json -: standard output is the command's", fix="--json FILE")
    if json_path and (reason := files.problem(json_path)):
        raise UsageError(f"--json {json_path}: {reason}")
    path = os.path.abspath(json_path) if json_path else None
    names = [name.strip() for text in peers for name in text.split(",") if name.strip()]
    try:
        record = observe(words, _networks(networks), resolve_peers(names))
    except ObservationError as error:
        say(f"torchnet: {error}")
        return error.exit_code
    receipt = receipt_of([record])
    if path:
        files.write_json(path, receipt, stdout=sys.stderr)
    say(_text(receipt))
    return record.exit_code


def merge(paths: list[str], json_path: str | None) -> int:
    """Print the receipt of all hosts on standard output, and return the exit code."""
    from torchnet.console import files
    from torchnet.text import printable
    from torchnet.witness.host_receipt import receipt_of

    if not paths:
        raise UsageError("no files", fix="torchnet receipt merge FILE…")
    # A file that is given twice, or with the receipt that it was merged into, counts once.
    records = {(one.host, one.began, one.command): one for path in paths for one in _records(path)}
    if not records:
        raise UsageError(f"{printable(paths[0])} has no hosts", fix="torchnet receipt --json FILE -- COMMAND")
    try:
        receipt = receipt_of(list(records.values()))
    except ValueError as error:
        raise UsageError(f"the files cannot be merged: {error}") from None
    if json_path:
        files.write_json(json_path, receipt)
    if json_path != "-":
        emit(_text(receipt) + "\n")
    return 0


def _networks(texts: Sequence[str]) -> list[HostNetwork]:
    from torchnet.config.k8s_values import parse_host_networks

    try:
        found = parse_host_networks(texts)
    except ValueError as error:
        raise UsageError(f"--network {error}", fix="ip address") from None
    if any(str(one) == "host:lo" for one in found):
        raise UsageError("--network host:lo: loopback leads to no other host", fix="ip address")
    return found


def _records(path: str) -> list[HostRecord]:
    """Read the records of a receipt's hosts.

    Raises:
        UsageError: The file is not a receipt of this command.
    """
    from torchnet.text import loads, printable
    from torchnet.witness.host_record import HostRecord

    try:
        with open(path, "rb") as file:
            nodes = loads(file.read(_LIMIT + 1), max_size=_LIMIT)["nodes"]
        return [HostRecord.from_json(node["witness"]) for node in nodes]
    except OSError as error:
        raise UsageError(f"{printable(path)}: {error.strerror}") from None
    except (KeyError, TypeError):
        reason = "is not a receipt of torchnet receipt"
    except ValueError as error:
        reason = str(error)
    raise UsageError(f"{printable(path)} {reason}", fix="torchnet receipt --json FILE -- COMMAND")


def _text(receipt: Mapping[str, Any]) -> str:
    """Format the receipt: the table of a job's receipt, and the connections that carried the most bytes."""
    from torchnet.console.text_table import table
    from torchnet.receipt import table as receipt_table
    from torchnet.receipt.receipt_model import Receipt
    from torchnet.text import printable
    from torchnet.units import size

    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    text = receipt_table.render(Receipt.model_validate(receipt), columns=columns)
    groups = [(node, one) for node in receipt["nodes"] for one in node["witness"]["connections"]]
    groups.sort(key=lambda pair: -(pair[1]["sent_bytes"] + pair[1]["received_bytes"]))
    rows = [
        (
            printable(one["process"], 60),
            f"{node['node']}:{one['pid']}",
            f"{one['remote']} ({'local' if one['accepted'] else 'remote'} port {one['port']})",
            one["interface"] or "?",
            size(one["sent_bytes"]),
            size(one["received_bytes"]),
        )
        for node, one in groups[:_SHOWN]
    ]
    if not rows:
        return text
    return f"{text}\n\n{table(HEADINGS, rows, columns or 120).rstrip()}"
