"""Typer's options, made from the table in `torchnet.config.settings`: no flag is declared a second time."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from torchnet.cli.torchrun_compat import TORCHRUN_FLAGS
from torchnet.config.settings import FIELDS, GROUPS, Field

OWN_GROUP = "This command"
FORMATS = ("yaml", "json")  # of a dry run


class PlainGroup(TyperGroup):
    """The top level: its own options are switches, whose values typer leaves alone if they are booleans."""

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``, with False instead of None for "not given": None would go through pydantic."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class PlainCommand(TyperCommand):
    """A command whose values stay as they were typed, and whose help lists the options under headings.

    Typer hands every value to pydantic. That costs 0.1 s, even for ``--help`` and for options that were not
    given, and it refuses arguments that are no UTF-8, which belong to the script. So the values go around it,
    into the callback's parameters and ``context.args``; `torchnet.config` checks them.
    """

    headings: ClassVar[tuple[str, ...]] = (*GROUPS, OWN_GROUP)
    fields: ClassVar[tuple[Field, ...]] = FIELDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the options that were given into ``ctx.params`` and all that follows them into ``ctx.args``."""
        try:
            options, ctx.args, _ = self.make_parser(ctx).parse_args(list(args))
        except Exception as error:
            # Some of click's errors leave out the context, and with it the usage and the next command.
            if getattr(error, "ctx", ctx) is None:
                error.ctx, error.cmd = ctx, self  # type: ignore[attr-defined]
            raise
        ctx.params = options
        if ctx.resilient_parsing:  # a shell's completion
            return list(ctx.args)
        asked_for_help = self.get_help_option(ctx)
        if asked_for_help is not None and options.pop(asked_for_help.name, False):
            typer.echo(ctx.get_help())
            ctx.exit()
        if ctx.args and not ctx.allow_extra_args:
            ctx.fail(f"{ctx.args[0]!r} is one argument too many")
        return list(ctx.args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The flags that begin with ``incomplete``; none after the script, whose flags are not torchnet's."""
        if ctx.args and not ctx.allow_interspersed_args:
            return []
        flags = super().shell_complete(ctx, incomplete)
        for flag in flags:
            flag.help = None  # typer would import rich and break it into lines, which fish takes for flags
        return flags

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The headings in their order, each with its options."""
        headings: dict[str, list[tuple[str, str]]] = {group: [] for group in self.headings}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                keyed = [one for one in self.fields if one.keyed and parameter_name(one) == parameter.name]
                keys = [(f"  {one.key}={one.metavar}", _help(one)) for one in keyed]
                headings[getattr(parameter, "rich_help_panel", None) or OWN_GROUP] += [record, *keys]
        for heading, records in headings.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class RawCommand(TyperCommand):
    """A command that leaves its whole argument vector to somebody else, in ``context.args``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse nothing, not even ``--help`` and ``--``."""
        ctx.args = list(args)
        return list(args)


def parameter_name(field: Field) -> str:
    """Python's name for the field's option: ``network.rate`` is ``network__rate``."""
    return field.typed_path.replace(".", "__")


def field_parameters(fields: Iterable[Field] = FIELDS, *, group: str = "") -> list[inspect.Parameter]:
    """A keyword parameter for each of ``fields`` that has a flag.

    ``group``: the heading of all of them, "" for each field's own.
    """
    parameters = {}
    for field in fields:
        name = parameter_name(field)
        if field.flag and name not in parameters:
            kind: Any = bool if field.switch else list[str] if field.repeat or field.keyed else str
            parameters[name] = parameter(name, kind, _option(field, group))
    return list(parameters.values())


def torchrun_parameters() -> list[inspect.Parameter]:
    """A keyword parameter for each of torchrun's flags that is none of torchnet's own."""
    return [
        parameter(one.parameter, bool if one.switch else str, typer.Option(None, one.flag, hidden=True))
        for one in TORCHRUN_FLAGS
    ]


def signature(parameters: Iterable[inspect.Parameter], dry_run: str) -> inspect.Signature:
    """Of a command that makes a job: its context, these parameters, and what all such commands take.

    ``dry_run`` is that flag's help.
    """
    config = typer.Option(
        None, "--config", metavar="FILE", help="Job file (TOML); its paths are relative to it."
    )
    form = typer.Option(None, "-o", metavar="|".join(FORMATS), help="Form of the dry run. [yaml]")
    return inspect.Signature(
        [
            inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *parameters,
            parameter("config", str, config),
            parameter("dry_run", bool, typer.Option(None, "--dry-run", help=dry_run)),
            parameter("form", str, form),
        ]
    )


def parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    """A keyword parameter for a command's ``__signature__``; None is "not given"."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _option(field: Field, group: str) -> Any:
    text, metavar = _help(field), None if field.switch else field.metavar
    if field.keyed:
        variable = field.env.removesuffix(field.key.upper())
        text, metavar = f"One of these settings; may repeat. As a variable: {variable}KEY.", "KEY=VALUE"
    return typer.Option(
        None,
        *(name for name in (field.flag, field.short) if name),
        help=text,
        metavar=metavar,
        show_default=False,
        rich_help_panel=group or field.group,
    )


def _help(field: Field) -> str:
    return f"{field.help} [{field.default}]" if field.default else field.help


def given_fields(values: dict[str, Any]) -> dict[str, object]:
    """The fields that were on the command line, as `torchnet.config.sources.from_flags` reads them; None is typer's
    for those that were not."""
    named = {field.typed_path: values.get(parameter_name(field)) for field in FIELDS if field.flag}
    return {path: value for path, value in named.items() if value is not None}
