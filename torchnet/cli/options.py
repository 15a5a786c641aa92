"""Typer's options, made from the table in `torchnet.spec.fields`: no flag is declared a second time."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand

from torchnet.cli.torchrun import FOREIGN
from torchnet.spec.fields import FIELDS, GROUPS, Field

HERE = "Here and now"


class GroupedCommand(TyperCommand):
    """A command whose help lists its options under headings, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the table's groups in order, then whatever has no group."""
        headings: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, HERE)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.param_type_name == "option":
                headings[getattr(parameter, "rich_help_panel", None) or HERE].append(record)
        for heading, records in headings.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def parameter_name(field: Field) -> str:
    """Python's name for the field's option: ``network.rate`` is ``network__rate``."""
    return field.path.replace(".", "__")


def field_parameters() -> list[inspect.Parameter]:
    """A keyword parameter for each field that has a flag, and for each of torchrun's meaningless ones."""
    parameters = [_parameter(parameter_name(field), _option(field), field) for field in FIELDS if field.flag]
    for one in FOREIGN:
        option = typer.Option(None, one.flag, hidden=True)
        kind = bool | None if one.switch else str | None
        parameters.append(
            inspect.Parameter(one.parameter, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)
        )
    return parameters


def _option(field: Field) -> Any:
    names = [name for name in (field.flag, field.short) if name]
    default = f" [{field.default}]" if field.default else ""
    return typer.Option(
        None,
        *names,
        help=field.help + default,
        metavar=None if field.switch else field.metavar,
        show_default=False,
        rich_help_panel=field.group,
    )


def _parameter(name: str, option: Any, field: Field) -> inspect.Parameter:
    kind: Any = bool | None if field.switch else list[str] | None if field.repeat else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def given_fields(values: dict[str, Any]) -> dict[str, object]:
    """The fields that were on the command line, by path; typer's None and [] mean that they were not."""
    named = {field.path: values.get(parameter_name(field)) for field in FIELDS if field.flag}
    return {path: value for path, value in named.items() if value is not None and value != []}
