"""What the commands for a cluster have in common: where they look, and which run they mean."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.options import PlainCommand, parameter
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.runtimes.kubernetes.commands import Place

Options = Sequence[tuple[str, Any, Any]]
"""(parameter's name, type, typer's option) each."""


def _where() -> list[tuple[str, Any, Any]]:
    return [
        (
            "namespace",
            str,
            typer.Option(None, "--namespace", "-n", metavar="NS", help="Namespace. [the context's]"),
        ),
        ("context", str, typer.Option(None, "--context", metavar="NAME", help="The kubeconfig's context.")),
        (
            "kubeconfig",
            str,
            typer.Option(
                None, "--kubeconfig", metavar="FILE", help="Kubeconfig. [KUBECONFIG, ~/.kube/config]"
            ),
        ),
    ]


def add(
    app: typer.Typer,
    name: str,
    action: Callable[[list[str], dict[str, Any]], int],
    *,
    about: str,
    short: str,
    options: Options = (),
    words: str = "[RUN] [FLAGS]",
) -> None:
    """Add a command; ``action`` gets the words on its command line and its options' values that were given."""

    def command(context: typer.Context, **values: Any) -> None:
        given = {key: value for key, value in values.items() if value is not None}
        # It may come before its options as well as behind them.
        context.obj.action = lambda: action(list(context.args), given)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(parameter(_internal(key), kind, option) for key, kind, option in (*options, *_where())),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    app.command(
        name,
        cls=PlainCommand,
        help=about,
        short_help=short,
        options_metavar=words,
        context_settings={"allow_extra_args": True},
    )(command)


def _internal(name: str) -> str:
    """``context`` is typer's own name for something else."""
    return "context_" if name == "context" else name


def place(given: dict[str, Any]) -> Place:
    """Where to look: what was typed, else where `torchnet launch` would go from here."""
    from torchnet.runtimes.kubernetes.commands import Place
    from torchnet.spec.words import parse_label

    settings = _settings()
    namespace = given.get("namespace", settings.get("namespace"))
    if namespace is not None:
        namespace = label(namespace, "-n", parse_label)
    return Place(
        namespace,
        given.get("context_", settings.get("context")),
        given.get("kubeconfig", settings.get("kubeconfig")),
    )


def _settings() -> dict[str, str]:
    """The cluster and namespace of the environment and the project's file, as a launch takes them."""
    from torchnet.spec.files import from_project
    from torchnet.spec.layers import from_environment, merge

    here = Path.cwd()
    merged = merge([from_environment(os.environ), from_project(here)])
    found = {}
    for name in ("namespace", "context", "kubeconfig"):
        value = merged.get(f"kubernetes.{name}")
        if value is not None and isinstance(value.raw, str):
            found[name] = str(here / value.base / value.raw) if name == "kubeconfig" else value.raw
    return found


def run_of(words: Sequence[str]) -> str | None:
    """The run that is named, if one is; checked before any call."""
    from torchnet.network.text import printable
    from torchnet.spec.words import parse_label

    if len(words) > 1:
        raise UsageError(f'"{printable(words[1], 80)}" is one argument too many: one RUN at a time')
    return label(words[0], "RUN", parse_label) if words else None


def label(text: str, what: str, parse: Callable[[str], str]) -> str:
    """``text`` as a DNS label, which names of runs and namespaces are."""
    from torchnet.network.text import printable

    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f'{what} "{printable(text, 80)}" {error}', fix="torchnet status") from None


def ranks_of(given: dict[str, Any]) -> tuple[int, ...]:
    """``--ranks``."""
    from torchnet.spec.values import parse_ranks

    try:
        return parse_ranks(given.get("ranks", ""))
    except ValueError as error:
        raise UsageError(f"--ranks {given['ranks']!r} {error}", fix="--ranks 0,4-7") from None
