"""What holds the whole back: MTUs that differ, buffers, a single stream, the processor."""

from __future__ import annotations

from torchnet.bench.findings import thresholds
from torchnet.bench.findings.view import View, processor
from torchnet.bench.findings.words import again, count, on, percent, rate, several
from torchnet.bench.results import Collective, Finding, Tcp
from torchnet.bench.worker.sizes import size_text


def mtu(view: View) -> list[Finding]:
    """The nodes' MTUs differ. The one that most have counts as meant."""
    nodes = {node.node: node.mtus[view.network] for node in view.results.nodes if view.network in node.mtus}
    sizes = list(nodes.values())
    if len(set(sizes)) < 2:
        return []
    meant = max(set(sizes), key=lambda one: (sizes.count(one), one))
    odd = [node for node, size in nodes.items() if size != meant]
    words = several([f"{view.name(node)} has {nodes[node]}" for node in odd])
    text = f"The MTU of {view.network} differs among the nodes: {words}, and the others have {meant}."
    fix = on(view, odd[0], f"ip link set {view.network} mtu {meant}")
    return [Finding(kind="mtu", text=text, fix=fix, where=tuple(view.name(node) for node in odd))]


def buffers(view: View) -> list[Finding]:
    """The sockets' largest buffers hold less than what is under way on this line, and the line is not reached."""
    line = view.line
    if line is None or not view.latency or not view.tcp:
        return []
    fewest = min(row.streams for row in view.tcp)
    if all(_reached(row) for row in view.tcp if row.streams == fewest):
        return []
    longest = max(row.p50 for row in view.latency)
    under_way = line.rate_bits_per_s / 8 * longest
    needed = thresholds.WINDOW_OF_BUFFER * under_way
    small: dict[str, tuple[int, list[int], str]] = {}
    for node in view.results.nodes:
        for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
            words = node.sysctls.get(name, "").split()
            if len(words) == 3 and words[2].isdigit() and int(words[2]) < needed:
                least, nodes, _ = small.get(name, (int(words[2]), [], ""))
                small[name] = min(least, int(words[2])), [*nodes, node.node], " ".join(words[:2])
    if not small:
        return []
    wanted = 1 << (int(needed) - 1).bit_length()
    sizes = several([f"{name} is {least} bytes at most" for name, (least, _, _) in small.items()])
    everywhere = sorted({node for _, nodes, _ in small.values() for node in nodes})
    names = tuple(view.name(node) for node in everywhere)
    text = (
        f"The buffers of sockets are too small on {several(names)}: {sizes}, and {rate(line.rate_bits_per_s / 8)} "
        f"with round trips of {longest * 1e3:.3g} ms need {count(needed)}."
    )
    settings = " ".join(f"{name}='{first} {wanted}'" for name, (_, _, first) in small.items())
    fix = on(view, everywhere[0], f"sysctl -w {settings}")
    return [Finding(kind="buffers", text=text, fix=fix, where=names)]


def _reached(row: Tcp | Collective) -> bool:
    return row.ceiling_share is not None and row.ceiling_share >= thresholds.REACHED


def single_stream(view: View) -> list[Finding]:
    """One stream stays below the line, not for the processor's sake, and more would reach more."""
    line = view.line
    if line is None:
        return []
    for row in sorted(view.tcp, key=lambda row: (row.both, row.rate.median)):
        if row.streams != 1 or row.rate.high >= thresholds.SLOW * line.ceiling or processor(row):
            continue
        more = [
            other
            for other in view.tcp
            if other.streams > 1
            and (other.source, other.target, other.both) == (row.source, row.target, row.both)
            and other.rate.low > thresholds.MORE_STREAMS * row.rate.high
        ]
        window = (row.window_limited or 0.0) > thresholds.WINDOW_LIMITED
        if not more and not window:
            continue
        if more:
            best = max(more, key=lambda other: other.rate.median)
            why = f"{best.streams} streams reach {rate(best.rate.median)}"
        else:
            why = f"its window held it up for {percent(row.window_limited or 0.0)} of the time"
        way = view.way((row.source, row.target))
        text = (
            f"One TCP stream does not fill the line: {rate(row.rate.median)} from {way}, and the line can carry "
            f"{rate(line.ceiling)}; {why}."
        )
        where = view.name(row.source), view.name(row.target)
        return [Finding(kind="single-stream", text=text, fix=again(view, "--streams", "4"), where=where)]
    return []


def cpu_bound(view: View) -> list[Finding]:
    """The line is not reached while the processor has no more to give. Without a line nothing is known to be missing:
    then the processor is just what limits, as it must be something."""
    if view.line is None:
        return []
    best = max(view.large, key=lambda row: row.busbw, default=None)
    if best is not None and not _reached(best) and (how := processor(best)):
        what = f"{best.collective} of {size_text(best.size)} reaches {rate(best.busbw)}"
        return [_bound(view, what, how)]
    for way, row in sorted(view.alone.items(), key=lambda item: item[1].rate.median):
        if not _reached(row) and (how := processor(row)):
            return [_bound(view, f"raw TCP from {view.way(way)} reaches {rate(row.rate.median)}", how)]
    return []


def _bound(view: View, what: str, how: str) -> Finding:
    assert view.line
    ceiling = rate(view.line.ceiling)
    text = f"The processor limits, not the network: {what} of the {ceiling} that the line can carry; {how}."
    fix = on(view, 0, "cat /sys/fs/cgroup/cpu.stat") if "quota" in how else on(view, 0, "top -H -b -n 1")
    return Finding(kind="cpu-bound", text=text, fix=fix)
