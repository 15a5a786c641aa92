"""The end of the page: what was not measured, the nodes, the environment, and how to repeat the run."""

from __future__ import annotations

import shlex

from torchnet.bench.html import numbers
from torchnet.bench.html.markup import Column, Html, Ids, code, details, section, table, tag
from torchnet.bench.rerun import rerun_command
from torchnet.bench.results import Node, Results
from torchnet.units import counted


def lacking(results: Results, ids: Ids) -> Html:
    if not results.lacks:
        return Html("")
    columns = (Column("what"), Column("why"))
    rows = [(one.what, one.why) for one in results.lacks]
    listed = table(ids, "Requested, but not measured", columns, rows, words=True)
    return section(ids, "lacking", "Not measured", listed)


def again(results: Results, ids: Ids) -> Html:
    setup = results.setup
    if setup is None or not setup.command:
        return Html("")
    command, unset = rerun_command(setup.command)
    words: list[Html] = [_block(shlex.join(command))]
    if unset:
        flag = tag("code", "--env", class_="word")
        words.append(tag("p", "Values of ", flag, f" are not stored; set these again: {', '.join(unset)}."))
    shown = (
        "To compare two runs, use ",
        code("torchnet bench diff old.json new.json"),
        " with results written by ",
        tag("code", "--json", class_="word"),
        ". The command above omits this run’s output files, so that it does not overwrite them.",
    )
    return section(ids, "again", "How to reproduce", words, tag("p", shown))


def environment(results: Results, ids: Ids) -> Html:
    facts = [("torchnet", results.torchnet), ("date", results.date)]
    if results.run:
        facts.append(("run", results.run))
    setup = results.setup
    if setup:
        facts += [
            ("where", "on this machine, in namespaces" if setup.on == "local" else setup.place),
            ("workers", f"{counted(setup.ranks, 'rank')} on {counted(setup.nodes, 'node')}"),
            ("backend", f"{setup.backend} on {setup.device}"),
            ("interface", setup.interface),
        ]
        facts += [("compared with", setup.compare)] if setup.compare else []
        facts += [("image", setup.image)] if setup.image else []
        facts += sorted(setup.versions.items())
    facts.append(("exit code", str(results.exit_code)))
    columns = (Column("what"), Column("value"))
    tables = [table(ids, "Set-up of the run", columns, facts, words=True)]
    if setup and setup.environment:
        rows = sorted(setup.environment.items())
        tables.append(table(ids, "Environment variables of rank 0", columns, rows, words=True))
    return section(ids, "environment", "Environment and versions", tables)


def nodes(results: Results, ids: Ids) -> Html:
    if not results.nodes:
        return Html("")
    columns = (
        Column("node"), Column("number", True), Column("addresses"), Column("MTUs"), Column("speeds"),
        Column("cores", True), Column("memory", True), Column("processor"), Column("kernel"),
    )  # fmt: skip
    parts = [table(ids, "Machines of the workers", columns, [_node(one) for one in results.nodes])]
    names = sorted({name for one in results.nodes for name in one.sysctls})
    if names:
        heads = [Column("sysctl"), *(Column(one.name) for one in results.nodes)]
        rows = [(name, *(one.sysctls.get(name, numbers.NONE) for one in results.nodes)) for name in names]
        parts.append(details("Kernel settings", table(ids, "sysctls of TCP, by node", heads, rows)))
    return section(ids, "nodes", "Nodes", parts)


def _node(one: Node) -> tuple[str | Html, ...]:
    speeds = {name: numbers.bits(speed) for name, speed in one.speeds.items()}
    return (
        one.name, str(one.node), _each(one.addresses), _each({name: str(mtu) for name, mtu in one.mtus.items()}),
        _each(speeds), f"{one.cores:.4g}", numbers.binary(one.memory), one.cpu or numbers.NONE,
        one.kernel or numbers.NONE,
    )  # fmt: skip


def _each(values: dict[str, str]) -> str | Html:
    """Put each value on a line of its own."""
    lines = [f"{name} {value}" for name, value in sorted(values.items())]
    return Html(tag("br").join(tag("span", line) for line in lines)) if lines else numbers.NONE


def _block(text: str) -> Html:
    """Return text to copy: one click or a long press selects all of it."""
    return tag("pre", code(text), class_="all")
