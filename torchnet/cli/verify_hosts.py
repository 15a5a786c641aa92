"""``torchnet verify`` on several hosts: they join, and check all paths between them, as before a launch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchnet.cli.multi_host import HostPlan
    from torchnet.k8s.verify.check import Check

FIELDS = ("nnodes", "run.start_timeout", "network.family")
"""The settings of a launch that the command has for hosts."""


def run(planned: HostPlan, given: Mapping[str, Any], show: Callable[[Check], None]) -> int:
    """Run the checks; on node 0 they are shown. Return the exit code.

    Raises:
        TorchnetError: This host cannot take part.
    """
    from torchnet.bench.bench_options import SETTLED
    from torchnet.cli import multi_host
    from torchnet.cli.entry_point import say
    from torchnet.cli.torchrun_compat import from_variables
    from torchnet.cli.typer_parameters import parameter_name
    from torchnet.config.resolution import resolve
    from torchnet.config.settings import BY_PATH
    from torchnet.hosts.hosts_runtime import HostsRuntime
    from torchnet.runtime import working_directory

    names = {path: parameter_name(BY_PATH[path]) for path in FIELDS}
    typed = {path: given[name] for path, name in names.items() if name in given}
    if "nnodes" in (variables := from_variables(given, typed, os.environ)):
        typed = {"nnodes": variables["nnodes"], **typed}
    own = {
        "script": "true",
        "args": (),
        "no_python": True,
        "nproc_per_node": 1,
        "network.preflight": "full",
        **({"network.networks": given["network"]} if given.get("network") else {}),
    }
    cwd = working_directory()
    resolved = multi_host.resolved(
        planned,
        lambda more, shown: resolve({**typed, **more, **own}, os.environ, cwd, unread=SETTLED, shown=shown),
        "verify",
    )
    for line in (*filter(None, (multi_host.notice(resolved.job),)), *resolved.warnings):
        say(f"torchnet: {line}")
    checks = HostChecks(show)
    return HostsRuntime().launch(resolved.job, cwd, checks)


class HostChecks:
    """A console listener that turns a job's start into checks, on the host that gets the receipt."""

    def __init__(self, show: Callable[[Check], None]) -> None:
        self._show = show
        self._joined = self._paths = ""
        self._warnings: list[str] = []
        self._failure: tuple[str, str] = ("", "")
        self._is_node_0 = False  # so far as its events show

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """Return True for what becomes a check."""
        kind, text = event.get("event"), str(event.get("text", ""))
        self._is_node_0 = self._is_node_0 or kind == "phase"
        if kind == "receipt":
            self._end(event["receipt"])
        elif kind == "phase" and event.get("phase") == "join":
            counts = re.fullmatch(r"(\d+)/(\d+) joined", text)  # also of those before the last one
            self._joined = text if counts and counts[1] == counts[2] else ""
        elif kind == "phase" and event.get("phase") == "preflight":
            self._paths = text
        elif kind == "notice" and "UDP" in text:
            self._warnings.append(text)
        elif kind == "failure" and not self._failure[0]:
            self._failure = text, str(event.get("kind"))
        return kind in ("receipt", "phase") or (kind == "failure" and self._is_node_0)

    def _end(self, receipt: Mapping[str, Any]) -> None:
        from torchnet.k8s.verify.check import Check, unknown

        text, _, fix = self._failure[0].partition("\n  fix: ")
        if not fix and text.count("; fix: ") == 1:
            text, _, fix = text.partition("; fix: ")
        if not fix and self._failure[1] == "timeout":
            fix = "start the same line on each host; --start-timeout SECONDS waits longer"
        hosts = ", ".join(node["node"] for node in receipt["nodes"])
        if self._joined:
            self._show(Check("hosts", good=True, evidence=f"{self._joined}: {hosts}"))
        if self._paths:
            self._show(Check("paths", good=True, evidence=self._paths))
        if text:
            name = "start" if self._paths else "paths" if self._joined else "hosts"
            stopped = self._failure[1] == "interrupted"
            self._show(
                unknown(name, text, fix) if stopped else Check(name, good=False, evidence=text, fix=fix)
            )
        for warning in self._warnings:
            what, _, how = warning.partition("; fix: ")
            self._show(unknown("packet size", what, how))
