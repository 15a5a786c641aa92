"""The files of a benchmark. What cannot be stored is on standard output, as JSON, once."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from torchnet.bench.results import Results
from torchnet.network.text import printable
from torchnet.ui.save import show, store, write_json


def save(
    results: Results,
    json_path: str | None,
    html_path: str | None,
    *,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> list[str]:
    """Write what was asked for; the files that hold it, each with what it is.

    Nothing is raised, and the exit code stays the job's, as with a launch's receipt: whoever asked for a file sees the
    line on standard error, and has the results on standard output.
    """
    written: list[str] = []
    known = False  # the results are stored, or on standard output
    document: dict[str, Any] = results.model_dump(mode="json", by_alias=True)
    if json_path is not None:
        failed = write_json(json_path, document, stdout=stdout, stderr=stderr)
        known = True
        if failed is None and json_path != "-":
            written.append(f"{json_path} (results)")
    if html_path is not None:
        reason = _html(results, html_path)
        if reason is None:
            written.append(f"{html_path} (report)")
        else:
            where = "" if known else "; the results are on standard output"
            show(
                f"torchnet: error: {printable(html_path)} could not be written: {reason}{where}\n",
                stderr or sys.stderr,
            )
            if not known:
                show(json.dumps(document, indent=2, allow_nan=False) + "\n", stdout or sys.stdout)
    return written


def _html(results: Results, path: str) -> str | None:
    try:
        from torchnet.bench.report import html

        page = html(results)
    except Exception as error:  # a plotting library may raise anything, and the figures are not lost for it
        return f"the report cannot be made ({type(error).__name__}: {printable(str(error), 300)})"
    reason = store(path, page.encode("utf-8", "backslashreplace"))
    return None if reason is None else printable(reason)
