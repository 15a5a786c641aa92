"""Options and arguments shared by the cluster commands: namespace, context, kubeconfig and RUN."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.typer_parameters import PlainCommand, parameter
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.config.sources import Value
    from torchnet.config.validation_errors import FieldProblem
    from torchnet.k8s.commands import ClusterTarget

Options = Sequence[tuple[str, Any, Any]]
"""(parameter name, type, typer option) of each option."""
_READ = ("namespace", "context", "kubeconfig")
_WHAT_THERE_IS = "kubectl config get-contexts, kubectl get namespaces"


def _where() -> list[tuple[str, Any, Any]]:
    return [
        (
            "namespace",
            str,
            typer.Option(
                None, "--namespace", "-n", metavar="NS", help="Namespace. [the namespace of the context]"
            ),
        ),
        (
            "context",
            str,
            typer.Option(
                None, "--context", metavar="NAME", help="Kubeconfig context to use. [the current context]"
            ),
        ),
        (
            "kubeconfig",
            str,
            typer.Option(
                None,
                "--kubeconfig",
                metavar="FILE",
                help="Path of the kubeconfig file. [KUBECONFIG, ~/.kube/config]",
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
    options: Options,
    words: str = "[RUN] [FLAGS]",
) -> None:
    """Add a command to the application.

    Args:
        action: Called with the positional arguments and the options that were given; returns the exit code.
        about: Help text of the command.
        short: One-line help in the list of commands.
        options: The command's options, in addition to the shared ones.
        words: Usage, after the command's name.
    """

    def command(context: typer.Context, **values: Any) -> None:
        given = {key: value for key, value in values.items() if value is not None}
        # Options are allowed before and after RUN.
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
    """Return the parameter name of an option; ``context`` is renamed, since typer uses that name."""
    return "context_" if name == "context" else name


def place(given: dict[str, Any]) -> ClusterTarget:
    """Resolve the cluster and namespace from options, variables and project file, as ``torchnet launch`` does.

    Prints the warnings of the sources.

    Raises:
        SpecError: A file, a variable or an option is invalid.
    """
    from torchnet.cli.entry_point import say
    from torchnet.config.sources import from_environment, from_flags, from_project, merge
    from torchnet.config.validation_errors import NEXT, SpecError
    from torchnet.k8s.commands import ClusterTarget
    from torchnet.runtime import working_directory

    typed = {f"kubernetes.{name}": given[_internal(name)] for name in _READ if _internal(name) in given}
    layers = [from_flags(typed), from_environment(os.environ), from_project(Path(working_directory()))]
    unusable = [problem for layer in layers for problem in layer.problems]
    found, wrong = _read(merge(layers))
    if unusable or wrong:
        # Do not ignore invalid values: the kubeconfig's default may be a different cluster.
        raise SpecError(unusable + wrong, about="cluster options", fix=NEXT if unusable else _WHAT_THERE_IS)
    for layer in layers:
        for line in layer.warnings:
            say(f"torchnet: {line}")
    return ClusterTarget(**found, say=lambda text: say(f"torchnet: warning: {text}"))


def _read(merged: Mapping[str, Value]) -> tuple[dict[str, str], list[FieldProblem]]:
    """Return the values of namespace, context and kubeconfig, and the problems with them."""
    from torchnet.config.parsing import parse_label, parse_nonempty, quote
    from torchnet.config.settings import BY_PATH
    from torchnet.config.validation_errors import FieldProblem

    found, wrong = {}, []
    for name in _READ:
        path = f"kubernetes.{name}"
        value = merged.get(path)
        if value is None:
            continue
        try:
            text = (parse_label if name == "namespace" else parse_nonempty)(value.raw)
        except ValueError as error:
            what, valid = f"{quote(value.raw)} {error}", BY_PATH[path].valid
            wrong.append(FieldProblem(path, what, value.origin.where, valid))
        else:
            found[name] = os.path.join(value.base, text) if BY_PATH[path].is_path else text
    return found, wrong


def run_of(words: Sequence[str]) -> str | None:
    """Return the run that ``words`` name, or None if empty; validated before any API call.

    Raises:
        UsageError: There are several words, or the name is invalid.
    """
    from torchnet.config.parsing import parse_label, quote

    if len(words) > 1:
        raise UsageError(f"unexpected argument {quote(words[1])}: only one RUN is allowed")
    try:
        return parse_label(words[0]) if words else None
    except ValueError as error:
        raise UsageError(f"RUN {quote(words[0])} {error}", fix="torchnet status") from None


def ranks_of(given: dict[str, Any]) -> tuple[int, ...]:
    """Return the ranks of ``--ranks``; empty if it was not given.

    Raises:
        UsageError: The value is invalid.
    """
    from torchnet.config.parsing import parse_ranks

    try:
        return parse_ranks(given.get("ranks", ""))
    except ValueError as error:
        raise UsageError(f"--ranks {given['ranks']!r} {error}", fix="--ranks 0,4-7") from None
