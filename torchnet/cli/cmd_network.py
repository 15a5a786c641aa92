"""``torchnet network lint | show``: faults of network attachments, and who has which of their addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.cluster_options import add, place
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.k8s.attachments.lint import Lint

FORMATS = ("text", "json")
HELP = """\
Check network attachments, or show their addresses.

\b
torchnet network lint FILE...           # manifests, CNI configurations or parts of them; - is standard input
torchnet network lint -n NAMESPACE      # what is installed there, and the pods' annotations
torchnet network show [NS/]NAME         # who has which address, what is free, duplicates, stale leases

lint prints each fault with its field, its consequence and the corrected JSON. Its exit code is 4 if there is a fault;
warnings do not count. What this user may not read is skipped, and named.
"""
_USAGE = (
    "torchnet network lint FILE..., torchnet network lint -n NAMESPACE, or torchnet network show [NS/]NAME"
)
_OF_THE_CLUSTER = {"namespace": "--namespace", "context_": "--context", "kubeconfig": "--kubeconfig"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    form = typer.Option(None, "--output", "-o", metavar="|".join(FORMATS), help="Output format. [text]")
    add(
        app,
        "network",
        run,
        about=HELP,
        short="Check network attachments, or show their addresses.",
        options=[("form", str, form)],
        words="lint [FILE]... | show [NS/]NAME [FLAGS]",
    )


def run(words: list[str], given: dict[str, Any]) -> int:
    """Check attachments or show addresses.

    Returns:
        The exit code: 4 if ``lint`` finds a fault, else 0.
    """
    from torchnet.config.parsing import quote

    form = given.get("form", FORMATS[0])
    if form not in FORMATS:
        raise UsageError(f"invalid output format {form!r}; valid: {', '.join(FORMATS)}")
    if words[:1] == ["lint"]:
        return _lint(words[1:], given, form)
    if words[:1] == ["show"]:
        return _show(words[1:], given, form)
    what = f"unknown command {quote(words[0])}" if words else "no command"
    raise UsageError(f"{what}; valid: lint, show", fix=_USAGE)


def _lint(paths: Sequence[str], given: dict[str, Any], form: str) -> int:
    from torchnet.cli.entry_point import emit
    from torchnet.cli.network_output import lint_document, lint_text
    from torchnet.k8s.attachments.lint import lint

    if paths:
        if ignored := [flag for name, flag in _OF_THE_CLUSTER.items() if name in given]:
            raise UsageError(f"{', '.join(ignored)}: files are checked without the cluster", fix=_USAGE)
        documents = [_read(path) for path in paths]
        found = lint(
            [one for part in documents for one in part.definitions],
            [one for part in documents for one in part.requests],
        )
        if not found.checked:
            raise UsageError(
                f"no attachments in {', '.join(paths)}: neither a NetworkAttachmentDefinition, nor a CNI "
                "configuration, nor the annotation of a pod",
                fix=_USAGE,
            )
    else:
        from torchnet.k8s.client.access import NoKubeconfigError
        from torchnet.k8s.commands import lint_network

        try:
            found = lint_network(place(given))
        except NoKubeconfigError as error:
            fix = "torchnet network lint FILE..., or set --kubeconfig or KUBECONFIG"
            raise NoKubeconfigError(error.text, fix=fix) from None
    emit(json.dumps(lint_document(found), indent=2) + "\n" if form == "json" else lint_text(found))
    return exit_code(found)


def exit_code(found: Lint) -> int:
    """Return the exit code of the command for what the rules found."""
    return 4 if found.faults else 0


def _read(path: str) -> Any:
    """Read the attachments in a file; - is standard input.

    Raises:
        UsageError: It cannot be read, or is neither YAML nor JSON.
    """
    from torchnet.k8s.attachments.lint_documents import read_documents
    from torchnet.text import printable
    from torchnet.yaml_io import SIZE_LIMIT, YamlError

    shown = printable(path, 200)
    try:
        if path == "-":
            data = sys.stdin.buffer.read(SIZE_LIMIT + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise UsageError(f"{shown} has more than {SIZE_LIMIT} bytes, the limit")
        return read_documents(shown, data)
    except OSError as error:
        raise UsageError(f"{shown}: {error.strerror}", fix=_USAGE) from None
    except ValueError as error:
        raise UsageError(f"{shown}: {error}", fix=_USAGE) from None
    except YamlError as error:
        raise UsageError(f"{shown} {error}", fix=f"kubectl apply --dry-run=client -f {shown}") from None


def _show(words: Sequence[str], given: dict[str, Any], form: str) -> int:
    from torchnet.cli.entry_point import emit, say
    from torchnet.cli.network_output import address_document, address_text
    from torchnet.config.parsing import parse_label, quote
    from torchnet.k8s.commands import show_network

    if len(words) != 1:
        raise UsageError(f"{'no' if not words else 'more than one'} attachment", fix=_USAGE)
    namespace, slash, name = words[0].rpartition("/")
    try:
        if slash:
            parse_label(namespace)
        parse_label(name)
    except ValueError as error:
        raise UsageError(
            f"{quote(words[0])} {error}", fix="kubectl get network-attachment-definitions -A"
        ) from None
    found = show_network(place(given), namespace, name)
    emit(json.dumps(address_document(found), indent=2) + "\n" if form == "json" else address_text(found))
    for line in found.skipped if form == "text" else ():
        say(f"torchnet: {line}")
    return 0
