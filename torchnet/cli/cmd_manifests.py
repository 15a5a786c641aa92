"""``torchnet manifests NAME``: print a manifest for an administrator to apply to a cluster with kubectl."""

from __future__ import annotations

import inspect
import shlex
from functools import partial
from typing import Any

import typer

from torchnet.cli.typer_parameters import PlainCommand, parameter
from torchnet.errors import UsageError
from torchnet.k8s.addons.addon_options import FORMER_FLAGS, NAMES, TABLE

FORMATS = ("yaml", "json")
HELP = """\
Print manifests for a cluster: torchnet manifests multus | kubectl apply -f -

NAME is multus-install, whereabouts-install, backend-network, pytorch-pod-example, rbac or network-policy. Without
NAME, list them. The files in the directory manifests/ of the repository are the output of this command.
"""


def register(app: typer.Typer) -> None:
    """Add the command, with options from the addons' table."""
    app.command(
        "manifests",
        cls=PlainCommand,
        help=HELP,
        short_help="Print manifests: Multus, Whereabouts, the backend network.",
        options_metavar="[NAME] [FLAGS]",
        context_settings={
            "allow_extra_args": True,
            "token_normalize_func": lambda name: FORMER_FLAGS.get(name, name),
        },
    )(_command())


def _command() -> Any:
    def manifests(context: typer.Context, **values: Any) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        context.obj.action = partial(run, list(context.args), given)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    ]
    for option in TABLE:
        flags = (option.flag, option.short) if option.short else (option.flag,)
        typed = typer.Option(
            None, *flags, metavar=option.metavar or None, help=option.help, show_default=False
        )
        kind: Any = bool if option.switch else list[str] if option.repeat else str
        parameters.append(parameter(option.field, kind, typed))
    form = typer.Option(None, "-o", metavar="|".join(FORMATS), help="Output format. [yaml]")
    parameters.append(parameter("form", str, form))
    manifests.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    manifests.__annotations__ = {}
    return manifests


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print a manifest, or the list of manifests if none is named.

    Args:
        words: The manifest's name, or nothing.
        given: Values of the options that were given, by field.

    Returns:
        The exit code.
    """
    from torchnet.cli.entry_point import emit, say
    from torchnet.k8s.addons.addon_options import parse, parse_name
    from torchnet.k8s.addons.catalog import SUMMARIES, render
    from torchnet.k8s.objects import builders
    from torchnet.text import printable
    from torchnet.yaml_io import as_json, as_yaml

    form = given.pop("form", FORMATS[0])
    problems = []
    if form not in FORMATS:
        problems.append(f'-o "{printable(form, 80)}" is not an output format; valid: {", ".join(FORMATS)}')
    if not words:
        if given or problems:
            raise UsageError("flags require the NAME of a manifest", fix=f"NAME is one of {', '.join(NAMES)}")
        width = max(map(len, NAMES))
        emit("".join(f"{name:{width}}  {SUMMARIES[name]}\n" for name in NAMES))
        return 0
    problems += [f'"{printable(word, 80)}" is an unexpected argument' for word in words[1:]]
    name = parse_name(words[0])
    options = parse(name, given, problems)
    objects, head = render(name, options)
    for line in builders.check(objects):
        say(f"torchnet: {line}")
    emit(as_json(objects) if form == "json" else as_yaml(objects, f"{_typed(name, given)}\n\n{head}"))
    return 0


def _typed(name: str, given: dict[str, Any]) -> str:
    """Return the command line that prints this manifest, with flags in the order of the table."""
    words = ["torchnet", "manifests", name]
    for option in TABLE:
        values = given.get(option.field, [])
        if option.switch:
            words += [option.flag] if values else []
            continue
        for value in [values] if isinstance(values, str) else values:
            words += [option.flag, value]
    return f"Printed by\n  {shlex.join(words)}"
