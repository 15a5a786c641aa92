"""Build typer options from the table in `torchnet.config.settings`, so that no flag is declared twice."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from torchnet.cli.torchrun_compat import TORCHRUN_FLAGS
from torchnet.config.settings import FIELDS, FORMER_FLAGS, GROUPS, Field

OWN_GROUP = "Options"
FORMATS = ("yaml", "json")  # of a dry run


class PlainGroup(TyperGroup):
    """The top-level command. Its options are switches, which typer does not convert if they are booleans."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help`` with the default False; typer would pass the default None to pydantic."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class PlainCommand(TyperCommand):
    """A command that does not convert values, and whose help groups the options under headings.

    Typer passes every value to pydantic. That takes 0.1 s, even for ``--help`` and for options that are not given, and
    rejects arguments that are not UTF-8, although the script may accept them. This class passes the values directly to
    the callback's parameters and ``context.args`` instead; `torchnet.config` validates them.
    """

    headings: ClassVar[tuple[str, ...]] = (*GROUPS, OWN_GROUP)
    fields: ClassVar[tuple[Field, ...]] = FIELDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Store the given options in ``ctx.params``, and the remaining arguments in ``ctx.args``."""
        try:
            options, ctx.args, _ = self.make_parser(ctx).parse_args(list(args))
        except Exception as error:
            # Some of click's errors lack the context, without which neither usage nor a hint at --help is shown.
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
            ctx.fail(f"unexpected argument {ctx.args[0]!r}")
        return list(ctx.args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the flags that begin with ``incomplete``; none after the script, which has its own flags."""
        if ctx.args and not ctx.allow_interspersed_args:
            return []
        flags = super().shell_complete(ctx, incomplete)
        for flag in flags:
            flag.help = None  # typer would import rich and wrap the text, and fish reads each line as a flag
        return flags

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the headings in order, each with its options."""
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
    """A command that does not parse its arguments, but leaves all of them in ``context.args``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse nothing, not even ``--help`` and ``--``."""
        ctx.args = list(args)
        return list(args)


def parameter_name(field: Field) -> str:
    """Return the parameter name of the field's option: ``network__rate`` for ``network.rate``."""
    return field.typed_path.replace(".", "__")


def current_flag(name: str) -> str:
    """Return the name, without its dashes, under which a flag is declared.

    Flags are accepted with _ as well as with -, as torchrun does, and under their earlier names; the help shows only
    the present ones.
    """
    name = name.replace("_", "-")
    return FORMER_FLAGS.get(f"--{name}", f"--{name}").removeprefix("--")


def field_parameters(fields: Iterable[Field] = FIELDS, *, group: str = "") -> list[inspect.Parameter]:
    """Return a keyword parameter for each of ``fields`` that has a flag.

    Args:
        group: Heading for all of them in the help; "" for each field's own.
    """
    parameters = {}
    for field in fields:
        name = parameter_name(field)
        if field.flag and name not in parameters:
            kind: Any = bool if field.switch else list[str] if field.repeat or field.keyed else str
            parameters[name] = parameter(name, kind, field_option(field, group))
    return list(parameters.values())


def torchrun_parameters(flags: Collection[str] = ()) -> list[inspect.Parameter]:
    """Return a hidden keyword parameter for each torchrun flag that torchnet does not have, or for those ``flags``."""
    return [
        parameter(one.parameter, bool if one.switch else str, typer.Option(None, one.flag, hidden=True))
        for one in TORCHRUN_FLAGS
        if not flags or one.flag in flags
    ]


def signature(parameters: Iterable[inspect.Parameter], dry_run: str) -> inspect.Signature:
    """Return the signature of a command that runs a job: context, ``parameters``, and --config, --dry-run and -o.

    Args:
        dry_run: Help text of --dry-run.
    """
    config = typer.Option(
        None,
        "--config",
        metavar="FILE",
        help="Read settings from a TOML file. Paths in it are relative to it.",
    )
    form = typer.Option(None, "-o", metavar="|".join(FORMATS), help="Output format of --dry-run. [yaml]")
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
    """Return a keyword parameter for a command's ``__signature__``; its value is None if it is not given."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def field_option(field: Field, group: str = OWN_GROUP) -> Any:
    """Return the typer option of a field; ``group`` is its heading in the help, "" for the field's own."""
    text, metavar = _help(field), None if field.switch else field.metavar
    if field.keyed:
        variable = field.env.removesuffix(field.key.upper())
        text, metavar = (
            f"Set one of the following; repeatable. As an environment variable: {variable}KEY.",
            "KEY=VALUE",
        )
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
    """Return the fields given on the command line, in the form that `torchnet.config.sources.from_flags` reads.

    Args:
        values: Values of typer's parameters, None for options that were not given.
    """
    named = {field.typed_path: values.get(parameter_name(field)) for field in FIELDS if field.flag}
    return {path: value for path, value in named.items() if value is not None}
