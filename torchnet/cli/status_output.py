"""How ``torchnet status`` prints runs: as tables, JSON, YAML or names, at once or as they change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence

from torchnet.console.text_table import Layout
from torchnet.k8s.run.listing import RunRow, RunTable, as_json
from torchnet.units import seconds
from torchnet.yaml_io import Manifest, as_yaml

_WIDTH = 160  # where there is no terminal
# What a row that changes later may need: most states come with a reason.
_STATE_FLOOR = 48
_HEADINGS = ("RUN", "KIND", "READY", "STATE", "AGE", "EXIT CODE")
_WORKER_HEADINGS = ("WORKER", "POD", "NODE", "STATE", "EXIT CODE")


def printer(form: str, *, everywhere: bool, watch: bool) -> Callable[[RunTable], str]:
    """Return a function that formats tables, one after the other.

    Args:
        form: table, wide, json, yaml or name.
        everywhere: The runs of all namespaces are shown.
        watch: Every table after the first one holds only the rows that have changed.
    """
    if form == "json":
        return _json_lines if watch else _json
    if form == "yaml":
        return lambda table: as_yaml([Manifest(as_json(row)) for row in table.rows]) if table.rows else ""
    if form == "name":
        return lambda table: "".join(f"{row.run}\n" for row in table.rows)
    return _Tables(is_wide=form == "wide", everywhere=everywhere, watch=watch).text


def _json(table: RunTable) -> str:
    return json.dumps([as_json(row) for row in table.rows], indent=2) + "\n"


def _json_lines(table: RunTable) -> str:
    return "".join(json.dumps(as_json(row)) + "\n" for row in table.rows)


def _state(row: RunRow) -> str:
    attempt = f" (attempt {row.attempt})" if row.attempt is not None and row.attempt > 1 else ""
    return f"{row.state}{attempt}: {row.reason}" if row.reason else f"{row.state}{attempt}"


class _Tables:
    """Formats the runs, and the workers of the only run, in columns that stay the same."""

    def __init__(self, *, is_wide: bool, everywhere: bool, watch: bool) -> None:
        self._is_wide, self._everywhere, self._watch = is_wide, everywhere, watch
        self._width = shutil.get_terminal_size((_WIDTH, 24)).columns
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._workers: dict[str, tuple[str, ...]] = {}

    def text(self, table: RunTable) -> str:
        if not table.rows and not self._layouts:
            return "no readable runs found\n" if table.remark else "no runs found\n"
        workers = {cells[0]: cells for row in table.rows for cells in self._worker_cells(row)}
        changed = [cells for name, cells in workers.items() if self._workers.get(name) != cells]
        self._workers |= workers
        wide = ("NODES", "IMAGE") if self._is_wide else ()
        first = ("NAMESPACE",) if self._everywhere else ()
        text = self._columns(
            (*first, *_HEADINGS, *wide), [self._cells(row) for row in table.rows], len(first) + 1
        )
        if not changed:
            return text
        wide = ("IP", "BACKEND") if self._is_wide else ()
        gap = "" if _WORKER_HEADINGS + wide in self._layouts else "\n"
        return text + gap + self._columns(_WORKER_HEADINGS + wide, changed, 1)

    def _columns(self, headings: tuple[str, ...], rows: Sequence[Sequence[str]], fixed: int) -> str:
        is_new = headings not in self._layouts
        if is_new:
            floors = {headings.index("STATE"): _STATE_FLOOR} if self._watch else {}
            self._layouts[headings] = Layout(headings, rows, self._width, fixed=fixed, floors=floors)
        return self._layouts[headings].text(rows, headed=is_new)

    def _cells(self, row: RunRow) -> tuple[str, ...]:
        return (
            *((row.namespace,) if self._everywhere else ()),
            row.run,
            row.workload,
            f"{row.ready}/{row.total}",
            _state(row),
            seconds(row.age_s),
            "" if row.exit_code is None else str(row.exit_code),
            *((", ".join(row.nodes), row.image) if self._is_wide else ()),
        )

    def _worker_cells(self, row: RunRow) -> Iterator[tuple[str, ...]]:
        for one in row.workers:
            backend = ", ".join(f"{interface} {address}" for interface, address in one["backend"].items())
            yield (
                one["worker"],
                one["pod"],
                one["node"],
                f"{one['state']}: {one['reason']}" if one["reason"] else one["state"],
                "" if one["exit_code"] is None else str(one["exit_code"]),
                *((one["ip"], backend) if self._is_wide else ()),
            )
