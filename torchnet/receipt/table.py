"""Format the receipt as a table: bytes by node and interface, and the verdict on the backend share."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator

from torchnet.ansi import RESET, cells, clip
from torchnet.constants import ONE_NETWORK
from torchnet.receipt import step_timing
from torchnet.receipt.receipt_model import InterfaceBytes, NodeReceipt, Receipt
from torchnet.text import listed, printable
from torchnet.units import counted, percent, seconds, size

MANY = 16  # nodes; with more, only totals and remarkable nodes are listed
LISTED = 16  # limit on remarkable nodes, and on findings
UNEVEN = 1.25  # ratio of the most to the least used rail, above which they are reported as uneven

_BOLD, _RED, _GREEN, _YELLOW = "1", "1;31", "32", "33"
_ROLE, _NUMBER = 9, 12  # columns for the role and for a number; the widest heading is "with others"


def render(receipt: Receipt, *, columns: int | None = None, color: bool = False) -> str:
    """Return the receipt as text, without a final newline.

    Bytes exchanged with peers and with others are payload (counted by socket); bytes of an interface include headers
    (its counters). Long names are cut in the middle; the JSON receipt has them in full.

    Args:
        columns: Width of the terminal, at which sentences are wrapped. None for a pipe: the table takes 80 columns, and
            each sentence stays on one line, so that it can be searched for.
        color: Whether to use colours.
    """

    def sentence(text: str, style: str = "") -> str:
        lines = [text] if columns is None else _wrapped(text, max(20, columns - 1))
        return "\n".join(f"\x1b[{style}m{line}{RESET}" if color and style else line for line in lines)

    if not started(receipt):
        return sentence(_nothing_started(receipt), _BOLD)
    width = min(max(20, (columns or 80) - 1 - _ROLE - 4 * _NUMBER), 40)
    header = _row("node, interface", "role", ("sent", "received", "with peers", "with others"), width)
    out = [sentence(_title(receipt), _BOLD), "", f"\x1b[{_BOLD}m{header}{RESET}" if color else header]
    if len(receipt.nodes) > MANY:
        out += _summary(receipt, width)
    shown, left_out = _listed_nodes(receipt)
    for node in shown:
        out += _node_rows(node, width)
    if left_out:
        # The nodes of failed ranks without a row are unknown.
        least = "at least " if receipt.exit_code and receipt.ranks_omitted.keys() - {"0"} else ""
        out.append(f"… {least}{counted(left_out, 'more node')} like these (all are in the --json receipt)")
    out += ["(1 MB = 1,000,000 bytes)", ""]
    out += [sentence(text) for text in _rails(receipt)]
    if receipt.measured is not None:
        out.append(sentence(step_timing.sentence(receipt.measured)))
    out += [sentence(text, _YELLOW) for text in _findings(receipt)]
    for text, good in (_verdict(receipt), _wanted(receipt)):
        if text:
            out.append(sentence(text, "" if good is None else _GREEN if good else _RED))
    return "\n".join(out)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def exchanged(receipt: Receipt) -> int:
    """Return the bytes exchanged between the workers, each byte counted once.

    Sender and receiver both count each byte, and either may have left no receipt. So the larger count is taken for each
    direction of each pair of workers. Without complete lists of peers, it is half the sum of all nodes' bytes.
    """
    pairs: dict[tuple[str, str], list[int]] = {}
    for node in receipt.nodes:
        for peer in node.peers:
            pairs.setdefault((node.node, peer.node), [0, 0])[0] += peer.sent_bytes
            pairs.setdefault((peer.node, node.node), [0, 0])[1] += peer.received_bytes
    rdma = sum(sum(node.rdma_bytes.values()) for node in receipt.nodes) // 2
    if pairs and not any(node.peers_omitted for node in receipt.nodes):
        return rdma + sum(max(pair) for pair in pairs.values())
    return rdma + sum(node.peer_bytes for node in receipt.nodes) // 2


def started(receipt: Receipt) -> bool:
    """Return whether the script's processes ran; if the job failed before, there is no traffic to report."""
    return receipt.failure is None or not receipt.nodes or any(node.interfaces for node in receipt.nodes)


def _nothing_started(receipt: Receipt) -> str:
    return f"torchnet: {printable(receipt.run_id)}: nothing was started; exit code {receipt.exit_code}"


def _title(receipt: Receipt) -> str:
    if receipt.runtime == "command":
        hosts = listed([node.node for node in receipt.nodes], limit=8)
        return (
            f"torchnet: receipt of {printable(receipt.run_id)} on {hosts}, {seconds(receipt.duration_s)}: "
            f"{printable(receipt.reason)}"
        )
    restarts = f", {counted(receipt.restarts, 'restart')}" if receipt.restarts else ""
    return (
        f"torchnet: receipt of {printable(receipt.run_id)}: {counted(receipt.nnodes, 'node')} × "
        f"{counted(receipt.nproc_per_node, 'process')}, {seconds(receipt.duration_s)}{restarts}: "
        # The full text of a failure is printed above as the error, and below as the root cause.
        f"{f'exit code {receipt.exit_code}' if receipt.failure else printable(receipt.reason)}"
    )


def _row(name: str, role: str, numbers: Iterable[str], width: int) -> str:
    name = _cut(name, width)
    padding = " " * (width - cells(name))
    return (f"{name}{padding} {role:<{_ROLE}}" + "".join(f"{n:>{_NUMBER}}" for n in numbers)).rstrip()


def _cut(name: str, width: int) -> str:
    """Cut a name in the middle, since similar names often differ at their ends only."""
    if cells(name) <= width:
        return name
    tail = name[-(width // 2) :]
    while cells(tail) > width // 2:
        tail = tail[1:]
    return clip(name, width - 1 - cells(tail)) + "…" + tail


def _node_rows(node: NodeReceipt, width: int) -> Iterator[str]:
    yield _row(printable(node.node), "", ("", "", size(node.peer_bytes), size(node.other_bytes)), width)
    for name, interface in _by_role(node):
        if interface.role == "other" and not interface.sent_bytes + interface.received_bytes:
            continue
        peers = [peer.sent_bytes + peer.received_bytes for peer in node.peers if peer.interface == name]
        with_peers = size(sum(peers)) if node.peers or not node.peer_bytes else "-"
        if interface.peer_bytes is not None:
            with_peers = size(interface.peer_bytes)
        numbers = (size(interface.sent_bytes), size(interface.received_bytes), with_peers)
        yield _row("  " + printable(name), interface.role, numbers, width)


def _by_role(node: NodeReceipt) -> list[tuple[str, InterfaceBytes]]:
    order = ("backend", "frontend", "other")
    return sorted(node.interfaces.items(), key=lambda item: (order.index(item[1].role), item[0]))


def _summary(receipt: Receipt, width: int) -> Iterator[str]:
    """Yield rows for all nodes: totals, and for each backend interface the median and the nodes with extremes."""
    nodes = receipt.nodes
    peers, others = sum(n.peer_bytes for n in nodes), sum(n.other_bytes for n in nodes)
    yield _row(f"all {len(nodes):,} nodes", "", ("", "", size(peers), size(others)), width)
    names = {(name, interface.role) for node in nodes for name, interface in node.interfaces.items()}
    for name, role in sorted(names, key=lambda pair: (pair[1], pair[0])):
        used = [(node, node.interfaces[name]) for node in nodes if name in node.interfaces]
        sent, received = [i.sent_bytes for _, i in used], [i.received_bytes for _, i in used]
        if role == "other" and not sum(sent) + sum(received):
            continue
        yield _row("  " + printable(name), role, (size(sum(sent)), size(sum(received))), width)
        if role != "backend":
            continue
        middle = [size(int(statistics.median(counts))) for counts in (sent, received)]
        yield _row("    median", "", middle, width)
        for word, choose in (("least", min), ("most", max)):
            node, extreme = choose(used, key=lambda pair: pair[1].sent_bytes + pair[1].received_bytes)
            label = f"    {word}: {printable(node.node)}"
            yield _row(label, "", (size(extreme.sent_bytes), size(extreme.received_bytes)), width)


def _listed_nodes(receipt: Receipt) -> tuple[list[NodeReceipt], int]:
    """Return the nodes to list individually, and the number of remarkable nodes left out."""
    if len(receipt.nodes) <= MANY:
        return list(receipt.nodes), 0
    failed = {rank.node for rank in receipt.ranks if rank.exit_code != 0}
    remarkable = [
        node
        for node in receipt.nodes
        if node.findings
        or node.findings_omitted
        or node.flaps
        or node.proof != receipt.proof
        or (receipt.exit_code and node.node in failed)
    ]
    return remarkable[:LISTED], max(0, len(remarkable) - LISTED)


def _rails(receipt: Receipt) -> Iterator[str]:
    rails = receipt.rails
    if len(rails) < 2:
        return
    parts = [
        f"{printable(rail.interface)} {size(rail.peer_bytes)}"
        + ("" if rail.share is None else f" ({percent(rail.share)})")
        for rail in rails
    ]
    text = "rails: " + ", ".join(parts)
    least, most = min(rails, key=lambda r: r.peer_bytes), max(rails, key=lambda r: r.peer_bytes)
    reported = any(f"{least.interface} carried" in finding for finding in receipt.findings)  # by the agents
    if most.peer_bytes > UNEVEN * least.peer_bytes and not reported:
        low, high = printable(least.interface), printable(most.interface)
        text += (
            f"; uneven: {low} carried {percent(least.peer_bytes / most.peer_bytes)} of the bytes of {high}"
        )
    yield text


def _findings(receipt: Receipt) -> Iterator[str]:
    found = list(receipt.findings)
    for node in receipt.nodes:
        # The agents' findings begin with the node's name, and the job's findings include them.
        found += [text if text.startswith(node.node) else f"{node.node}: {text}" for text in node.findings]
        found += [
            f"{node.node}: {flap.interface} was unavailable for {seconds(flap.duration_s)}, "
            f"{seconds(flap.at_s)} after the start"
            for flap in node.flaps
        ]
    found = [f"! {printable(text)}" for text in dict.fromkeys(found)]
    yield from found[:LISTED]
    if len(found) > LISTED:
        yield f"! and {counted(len(found) - LISTED, 'finding')} more (all are in the --json receipt)"


def _verdict(receipt: Receipt) -> tuple[str, bool | None]:
    if receipt.backend_share is None:
        return f"backend share unknown: {_why_unknown(receipt)}", None
    how: str = receipt.proof
    if receipt.proof == "measured" and receipt.schema_id != "torchnet.receipt/1":
        how += ", TCP"
    if receipt.proof_reason and (receipt.proof != "measured" or receipt.proof_reason == ONE_NETWORK):
        how += f": {printable(receipt.proof_reason)}"
    parties = "workers"
    if receipt.runtime == "command":
        parties = f"{receipt.nnodes} hosts" if receipt.nnodes > 1 else "hosts"
    amount = f"{size(exchanged(receipt))} exchanged between the {parties}"
    text = f"backend share {_range(receipt)} ({how}) of {amount}"
    over = _backends(receipt)
    if over:
        text += f", over {listed(over, limit=8)}"
    return text, receipt.backend_share >= 0.99


def _range(receipt: Receipt) -> str:
    """Format the bounds, rounded outward; one number if they are close to each other, which is the lower one."""
    low, high = receipt.backend_share or 0.0, receipt.backend_share_high
    most = percent(math.ceil((low if high is None else high) * 1e4 - 1e-9) / 1e4)
    if receipt.proof == "measured" or high is None or percent(low) == most:
        return percent(low)
    return f"{percent(low).removesuffix(' %')} to {most}"


def _why_unknown(receipt: Receipt) -> str:
    if receipt.proof_reason:
        return printable(receipt.proof_reason)
    if receipt.nnodes == 1:
        return "a single node uses no network"
    if receipt.network == "loopback":
        return "loopback: no network was used"
    return "no bytes were seen between the workers"


def _backends(receipt: Receipt) -> list[str]:
    if receipt.rails:
        used = [rail.interface for rail in receipt.rails if rail.peer_bytes]
        return used or [rail.interface for rail in receipt.rails]
    return sorted(
        {name for node in receipt.nodes for name, i in node.interfaces.items() if i.role == "backend"}
    )


def _wanted(receipt: Receipt) -> tuple[str, bool]:
    wanted, share = receipt.min_share, receipt.backend_share
    if wanted is None:
        return "", True
    if share is None:
        return f"--min-share {percent(wanted)} is not proven: the share is unknown", False
    if receipt.min_share_verdict == "not-proven":
        return f"--min-share {percent(wanted)} is not proven: {_range(receipt)}", False
    if share < wanted:
        return f"--min-share {percent(wanted)} is not reached: {_range(receipt)}", False
    return f"--min-share {percent(wanted)} is reached", True
