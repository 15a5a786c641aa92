"""A contract for import-linter that it lacks: what some modules may import, rather than what they may not.

A list of forbidden packages guards against those that somebody thought of; the agent must run where nothing
is installed, so that everything is forbidden but the standard library and what travels with it.
"""

from __future__ import annotations

import sys

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """``modules``, with all below them, import the standard library, each other's package and ``allowed``.

    Options: ``modules`` and ``allowed``, both lists of names.
    """

    type_name = "only"

    modules = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002
        modules: list[str] = list(self.modules)  # type: ignore[call-overload]
        allowed = {*sys.stdlib_module_names, *self.allowed}  # type: ignore[misc]
        roots = {module.partition(".")[0] for module in modules}
        found = []
        for name in sorted(graph.modules):
            if not any(name == module or name.startswith(f"{module}.") for module in modules):
                continue
            for imported in sorted(graph.find_modules_directly_imported_by(name)):
                if imported.partition(".")[0] not in allowed | roots:
                    found.append(f"{name} imports {imported}")
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line)
