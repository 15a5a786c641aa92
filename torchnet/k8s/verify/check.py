"""The result of one check of ``torchnet verify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error

Object = dict[str, Any]
Result = Literal["ok", "fail", "unknown"]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        good: Whether the check found no fault.
        fix: The next command if there is a fault, or if nothing is known.
        known: Whether the check could be made.
    """

    name: str
    good: bool
    evidence: str
    fix: str = ""
    known: bool = True

    @property
    def result(self) -> Result:
        """The result as one word."""
        return "fail" if not self.good else "ok" if self.known else "unknown"


def unknown(name: str, evidence: str, fix: str = "") -> Check:
    """Return a check that could not be made."""
    return Check(name, good=True, evidence=evidence, fix=fix, known=False)


def unreadable(name: str, error: ApiRefusal) -> Check:
    """Return a check that could not be made because this user may not read what it needs.

    Raises:
        ApiRefusal: The error has another reason.
    """
    if not is_permission_error(error.status, error.message):
        raise error
    return unknown(name, f"not allowed to {error.call}", error.call.question)
