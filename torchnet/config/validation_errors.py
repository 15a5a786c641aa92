"""Validation errors, one line each: the field, its value and origin, why it is invalid, and what is valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchnet.config.parsing import quote
from torchnet.config.settings import BY_PATH, FIELDS, TABLES
from torchnet.errors import UsageError
from torchnet.text import printable

if TYPE_CHECKING:
    from pydantic import ValidationError

    from torchnet.config.sources import Origin

NEXT = "torchnet launch --help"
_LINES = 40


@dataclass(frozen=True)
class FieldProblem:
    """One problem with a setting.

    Attributes:
        path: The field's path, or the path of a file if the file itself is the problem.
        what: What is wrong; completes a sentence about the field.
        where: Origin of the value; "" if unknown.
        valid: Valid values; "" if not stated.
    """

    path: str
    what: str
    where: str = ""
    valid: str = ""

    def __str__(self) -> str:
        where = f" (from {printable(self.where)})" if self.where else ""
        valid = f"; valid: {self.valid}" if self.valid else ""
        return f"{printable(self.path)}: {self.what}{where}{valid}"


class SpecError(UsageError):
    """Invalid settings.

    Args:
        problems: All problems found.
        about: What the settings describe: ``invalid ABOUT: 2 errors``.
    """

    def __init__(self, problems: Iterable[FieldProblem], *, about: str = "job", fix: str = NEXT) -> None:
        order = {field.path: place for place, field in enumerate(FIELDS)}
        self.problems = tuple(sorted(problems, key=lambda problem: order.get(problem.path, len(order))))
        shown = [f"  {problem}" for problem in self.problems[:_LINES]]
        if len(self.problems) > _LINES:
            shown.append(f"  … and {len(self.problems) - _LINES} more")
        count = "1 error" if len(self.problems) == 1 else f"{len(self.problems)} errors"
        super().__init__("\n".join([f"invalid {about}: {count}", *shown]), fix=fix)


def from_validation(
    error: ValidationError, origins: Mapping[str, Origin], table: str = ""
) -> list[FieldProblem]:
    """Convert pydantic's errors to problems, with the field's path and its valid values.

    Args:
        table: The table whose model was validated; "" for the whole job.
    """
    found: dict[tuple[str, str], FieldProblem] = {}
    for detail in error.errors(include_url=False):
        for problem in _problems(detail, origins, table):
            found.setdefault((problem.path, problem.what), problem)
    return list(found.values())


def _problems(detail: Any, origins: Mapping[str, Origin], table: str) -> list[FieldProblem]:
    path = ".".join(str(part) for part in (table, *detail["loc"]) if part != "")
    while path and path not in BY_PATH and path not in TABLES:
        path = path.rpartition(".")[0]
    reason = str(detail.get("ctx", {}).get("error", ""))
    if path not in BY_PATH:
        lines = (line.partition(": ") for line in (reason or detail["msg"]).splitlines())
        return [_between_fields(head, tail, path, origins) for head, _, tail in lines]
    where = origins[path].where if path in origins else ""
    if detail["type"] == "missing":
        return [FieldProblem(path, "is required", valid=BY_PATH[path].valid)]
    what = f"{quote(detail['input'])} {reason or _reason(detail['type'])}"
    return [FieldProblem(path, what, where, BY_PATH[path].valid)]


def _between_fields(head: str, tail: str, path: str, origins: Mapping[str, Origin]) -> FieldProblem:
    """Convert a line of a model validator, "path: what", or one about a whole table."""
    if head not in BY_PATH:
        return FieldProblem(path or "job", f"{head}: {tail}" if tail else head)
    return FieldProblem(head, tail, origins[head].where if head in origins else "", BY_PATH[head].valid)


def _reason(kind: str) -> str:
    """Describe a type of pydantic's errors."""
    return {
        "greater_than": "is too small",
        "greater_than_equal": "is too small",
        "less_than": "is too large",
        "less_than_equal": "is too large",
        "literal_error": "is not a valid value",
    }.get(kind, "is invalid")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "rate"?``, or "" if no known word is similar."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
