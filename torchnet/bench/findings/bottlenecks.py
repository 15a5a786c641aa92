"""Limits that affect the whole network: differing MTUs, socket buffers, a single stream, the processor."""

from __future__ import annotations

import math

from torchnet.bench.findings import finding_text, thresholds
from torchnet.bench.findings.finding_text import join_names, rate, rerun
from torchnet.bench.findings.result_index import ResultIndex, cpu_limit, node_cpu_limit
from torchnet.bench.results import Collective, Finding, Tcp
from torchnet.bench.worker.sizes import size_text
from torchnet.units import percent, size


def mtu(view: ResultIndex) -> list[Finding]:
    """The nodes' MTUs differ. The value that most nodes have counts as intended."""
    nodes = {node.node: node.mtus[view.network] for node in view.results.nodes if view.network in node.mtus}
    sizes = list(nodes.values())
    if len(set(sizes)) < 2:
        return []
    meant = max(set(sizes), key=lambda one: (sizes.count(one), one))
    odd = [node for node, size in nodes.items() if size != meant]
    which = join_names([f"{view.name(node)} has {nodes[node]}" for node in odd])
    rest = "the others have" if len(sizes) - len(odd) > 1 else "the other has"
    text = f"The MTU of {view.network} differs between the nodes: {which}, {rest} {meant}."
    fix = finding_text.check_network(view)
    return [Finding(kind="mtu", text=text, fix=fix, where=tuple(view.name(node) for node in odd))]


def buffers(view: ResultIndex) -> list[Finding]:
    """The maximum socket buffers are smaller than the data in flight on this line, and the rate stays below the
    line's."""
    line = view.line
    if line is None or not view.latency:
        return []
    if all(_reached(row) or _window_is_free(row) for row in view.tcp):
        return []
    # The shortest round trip shows the path; most of the others are processors that wake up.
    longest = max(row.least for row in view.latency)
    under_way = line.rate_bits_per_s / 8 * longest
    needed = thresholds.WINDOW_OF_BUFFER * under_way
    small: dict[str, tuple[int, list[int], str]] = {}
    for node in view.results.nodes:
        for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
            sizes = node.sysctls.get(name, "").split()
            if len(sizes) == 3 and sizes[2].isdigit() and int(sizes[2]) < needed:
                least, nodes, _ = small.get(name, (int(sizes[2]), [], ""))
                small[name] = min(least, int(sizes[2])), [*nodes, node.node], " ".join(sizes[:2])
    if not small:
        return []
    wanted = 1 << (int(needed) - 1).bit_length()
    largest = join_names([f"{name} allows {least} bytes" for name, (least, _, _) in small.items()])
    everywhere = sorted({node for _, nodes, _ in small.values() for node in nodes})
    names = tuple(view.name(node) for node in everywhere)
    text = (
        f"The socket buffers are too small on {join_names(names)}: {largest}, but {rate(line.rate_bits_per_s / 8)} "
        f"with round trips of {longest * 1e3:.3g} ms needs {size(round(needed))}."
    )
    settings = " ".join(f"{name}='{first} {wanted}'" for name, (_, _, first) in small.items())
    fix = finding_text.on_hosts(view, f"sysctl -w {settings}", *everywhere)
    return [Finding(kind="buffers", text=text, fix=fix, where=names)]


def _reached(row: Tcp | Collective) -> bool:
    return row.ceiling_share is not None and row.ceiling_share >= thresholds.REACHED


def _window_is_free(row: Tcp) -> bool:
    """Return whether it is known that neither the receiver's window nor the sender's buffer limits the sender."""
    return row.window_limited is not None and row.window_limited <= thresholds.WINDOW_FREE


def single_stream(view: ResultIndex) -> list[Finding]:
    """One stream stays below the line because of its window, its core or its flow, so that several streams may reach
    more."""
    line = view.line
    if line is None:
        return []
    for row in sorted(view.tcp, key=lambda row: (row.both, row.rate.median)):
        if row.streams != 1 or row.rate.high >= thresholds.SLOW * line.ceiling or node_cpu_limit(row):
            continue
        if not (why := _limit_of_stream(row) or _limit_of_path(view, row)):
            continue
        way = view.way((row.source, row.target))
        text = (
            f"One TCP stream does not fill the line: {rate(row.rate.median)} from {way}, but the line can carry "
            f"{rate(line.ceiling)}; {why}."
        )
        where = view.name(row.source), view.name(row.target)
        return [Finding(kind="single-stream", text=text, fix=rerun(view, "--streams", "4"), where=where)]
    return []


def _limit_of_stream(row: Tcp) -> str:
    """Return which limit of its own the stream reached, if known."""
    if (row.window_limited or 0.0) > thresholds.WINDOW_LIMITED:
        return f"its window limited it {percent(row.window_limited or 0.0)} of the time"
    if (row.core or 0.0) >= thresholds.BUSY:
        return f"it used {percent(row.core or 0.0)} of one core"
    return ""


def _limit_of_path(view: ResultIndex, row: Tcp) -> str:
    """Recognise a path that gives one flow less than the interface reports.

    The flow itself was not limited. If the line's rate was shaped or set with --line, the path is known to have all of
    it: then the path is slow.
    """
    assert view.line
    if view.line.known != "interface" or row.rate.high >= thresholds.SLOW * thresholds.ONE_STREAM:
        return ""
    if not _window_is_free(row) or row.core is None or row.core >= thresholds.EASY_STREAM:
        return ""
    if any(_reached(best) for best in view.large):
        return ""
    return (
        "neither its window nor a core limited it, so the limit is the path, or its share for one flow, such as one "
        "cable of a bond or a cloud's limit for a flow"
    )


def cpu_bound(view: ResultIndex) -> list[Finding]:
    """The rate stays below the line while the processor is fully used.

    The core of one stream is not enough as evidence. Without a line it is not known that anything is missing: the
    processor is then simply the limit, as something must be.
    """
    if view.line is None:
        return []
    best = max(view.large, key=lambda row: row.busbw, default=None)
    if best is not None and not _reached(best) and (how := cpu_limit(view, best)):
        what = f"{best.collective} of {size_text(best.size)} reaches {rate(best.busbw)}"
        return [_cpu_finding(view, what, how)]
    for way, row in sorted(view.alone.items(), key=lambda item: item[1].rate.median):
        if not _reached(row) and (how := node_cpu_limit(row) if row.streams == 1 else cpu_limit(view, row)):
            return [
                _cpu_finding(view, f"raw TCP from {view.way(way)} reaches {rate(row.rate.median)}", how, *way)
            ]
    return []


def _cpu_finding(view: ResultIndex, what: str, how: str, *nodes: int) -> Finding:
    assert view.line
    ceiling = rate(view.line.ceiling)
    text = f"The processor is the limit, not the network: {what} of the {ceiling} that the line can carry; {how}."
    if "quota" not in how:
        fix = finding_text.on_hosts(view, "top -H -b -n 1", *nodes)
    elif view.setup.on == "kubernetes":
        cores = max((node.cores for node in view.results.nodes), default=1.0)
        fix = rerun(view, "--cpus", str(2 * math.ceil(cores)))
    else:
        fix = finding_text.on_hosts(view, "cat /sys/fs/cgroup/cpu.stat", *nodes)
    return Finding(kind="cpu-bound", text=text, fix=fix)
