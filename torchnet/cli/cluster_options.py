"""What the commands for a cluster have in common: where they look, and which run they mean."""

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
"""(parameter's name, type, typer's option) each."""
_READ = ("namespace", "context", "kubeconfig")
_WHAT_THERE_IS = "kubectl config get-contexts, kubectl get namespaces"


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
    options: Options,
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


def place(given: dict[str, Any]) -> ClusterTarget:
    """Where to look: what was typed, else where `torchnet launch` would go from here. Prints the files' warnings.

    Raises:
        SpecError: a file, a variable or an option that a launch would refuse, too.
    """
    from torchnet.cli.entry_point import say
    from torchnet.config.sources import from_environment, from_flags, from_project, merge
    from torchnet.config.validation_errors import NEXT, SpecError
    from torchnet.k8s.commands import ClusterTarget

    typed = {f"kubernetes.{name}": given[_internal(name)] for name in _READ if _internal(name) in given}
    layers = [from_flags(typed), from_environment(os.environ), from_project(Path(working_directory()))]
    unusable = [problem for layer in layers for problem in layer.problems]
    found, wrong = _read(merge(layers))
    if unusable or wrong:
        # Nothing is left out: the kubeconfig's own default may be another cluster.
        raise SpecError(
            unusable + wrong, about="the way to the cluster", fix=NEXT if unusable else _WHAT_THERE_IS
        )
    for layer in layers:
        for line in layer.warnings:
            say(f"torchnet: {line}")
    return ClusterTarget(**found, say=lambda text: say(f"torchnet: warning: {text}"))


def _read(merged: Mapping[str, Value]) -> tuple[dict[str, str], list[FieldProblem]]:
    """What the layers say of the three values that a place has, and what is wrong with those."""
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


def working_directory() -> str:
    """The working directory. Raises UsageError where it is gone."""
    try:
        return os.getcwd()
    except OSError as error:
        what = f"the working directory cannot be told ({error.strerror}); it may have been removed"
        raise UsageError(what, fix="cd to an existing directory") from None


def run_of(words: Sequence[str]) -> str | None:
    """The run that is named, if one is; checked before any call."""
    from torchnet.config.parsing import parse_label, quote

    if len(words) > 1:
        raise UsageError(f"{quote(words[1])} is one argument too many: one RUN at a time")
    try:
        return parse_label(words[0]) if words else None
    except ValueError as error:
        raise UsageError(f"RUN {quote(words[0])} {error}", fix="torchnet status") from None


def ranks_of(given: dict[str, Any]) -> tuple[int, ...]:
    """``--ranks``."""
    from torchnet.config.parsing import parse_ranks

    try:
        return parse_ranks(given.get("ranks", ""))
    except ValueError as error:
        raise UsageError(f"--ranks {given['ranks']!r} {error}", fix="--ranks 0,4-7") from None
