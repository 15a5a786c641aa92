"""Check that the number of bytes is right, and that they use the right interface."""

from __future__ import annotations

from torchnet.bench.findings import thresholds
from torchnet.bench.findings.finding_text import check_network, on_hosts, rerun
from torchnet.bench.findings.result_index import ResultIndex
from torchnet.bench.results import Collective, Finding, Results
from torchnet.bench.tcp_ceiling import payload
from torchnet.bench.worker.sizes import size_text
from torchnet.constants import is_rail, rail_interface
from torchnet.units import percent, size

# torch's Gloo sends more than the minimum in these: its reduce is a reduce_scatter and a gather, its reduce_scatter an
# all_reduce.
_GLOO_MORE = ("reduce", "reduce_scatter")


def wrong_interface(view: ResultIndex) -> list[Finding]:
    """The backend's collectives used another interface."""
    counts: dict[str, int] = {}
    for row in view.collectives:
        for interface, number in (row.sockets_bytes or {}).items():
            counts[interface] = counts.get(interface, 0) + number
    counts.pop("lo", None)  # ranks of one node
    total = sum(counts.values())
    stray = {name: number for name, number in counts.items() if name not in _rails(view)}
    if total and sum(stray.values()) > thresholds.STRAY * total:
        most = max(stray, key=lambda name: stray[name])
        share = percent(sum(stray.values()) / total)
        words = f"{share} of the bytes between the ranks went over {most} instead of {view.network}"
        how = "counted on the ranks' sockets"
    elif (
        (at_most := _most(view.results)) is not None
        and not view.setup.compare
        and at_most < thresholds.BACKEND_SHARE
    ):
        most = max(counts, key=lambda name: counts[name], default="")
        share = percent(at_most)
        words = f"only {share} of the bytes between the nodes went over the backend network"
        words += f", and the ranks' sockets used {most}" if most else ""
        how = "from the run's receipt"
    elif view.setup.on != "hosts" and view.network != "lo" and not is_rail(view.network):
        # The receipt does not help if another network is measured on purpose.
        most = view.network
        words = f"the ranks are configured for {most}, but the backend is {rail_interface(0)}"
        how = f"{most} was measured as the backend"
    else:
        return []
    text = f"The traffic used the wrong network: {words} ({how})."
    misconfigured = any(
        view.network not in _listed(value) for name, value in view.setup.environment.items() if name in _NAMES
    )
    address = next(
        (one.addresses[view.network] for one in view.results.nodes[1:] if view.network in one.addresses), ""
    )
    # The ranks are configured for another interface, or their network is not the backend. Otherwise it is the route.
    explain = misconfigured or most == view.network or not address
    fix = "torchnet env --explain" if explain else check_network(view)
    return [Finding(kind="wrong-interface", text=text, fix=fix, where=(most,) if most else ())]


_NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


def _most(results: Results) -> float | None:
    """Return the most that the backend can have carried: unattributed bytes alone are no finding."""
    return results.backend_share if results.backend_share_high is None else results.backend_share_high


def _listed(value: str) -> list[str]:
    return value.lstrip("=").split(",")


def _rails(view: ResultIndex) -> set[str]:
    """Return the backend's interfaces: those that the ranks were given together with the first one."""
    found = {view.network}
    for name in _NAMES:
        listed = _listed(view.setup.environment.get(name, ""))
        if view.network in listed:
            found |= set(listed)
    # Compared with another rail, the first group uses its own rail only.
    return found - ({view.setup.compare} - {view.network})


def compare_counts(view: ResultIndex) -> list[Finding]:
    """Compare the sockets' bytes with the formula, then the interface's bytes with the sockets'."""
    return _formula(view) or _interface(view)


def _no_sockets(view: ResultIndex) -> bool:
    """Return whether NCCL was configured to use something other than TCP sockets: RDMA, or a plugin."""
    settings = {name: value.strip().lower() for name, value in view.setup.environment.items()}
    if view.setup.backend != "nccl" or settings.get("NCCL_NET") == "socket":
        return False
    rdma = "NCCL_IB_HCA" in settings and settings.get("NCCL_IB_DISABLE", "0") in ("", "0")
    return (
        rdma or bool(settings.get("NCCL_NET")) or settings.get("NCCL_NET_PLUGIN", "none") not in ("", "none")
    )


def _formula(view: ResultIndex) -> list[Finding]:
    nccl = view.setup.backend == "nccl"
    worst: tuple[float, Collective] | None = None
    for row in view.collectives:
        least = thresholds.LARGE_NCCL if nccl else thresholds.LARGE
        if row.size < least or not row.formula_bytes or row.sockets_bytes is None:
            continue
        ratio = sum(row.sockets_bytes.values()) / row.formula_bytes
        more = ratio > thresholds.MORE_BYTES * _chain_factor(view, row) and (
            nccl or row.collective not in _GLOO_MORE
        )
        fewer = (
            ratio < thresholds.FEWER_BYTES and view.setup.ranks == view.setup.nodes and not _no_sockets(view)
        )
        if (more or fewer) and (worst is None or abs(ratio - 1) > abs(worst[0] - 1)):
            worst = ratio, row
    if worst is None:
        return []
    ratio, row = worst
    sent = sum((row.sockets_bytes or {}).values())
    reason = "the backend sends more than its algorithm needs" if ratio > 1 else "some of it does not use TCP"
    text = (
        f"{row.collective} of {size_text(row.size)} sent {size(sent)} over the sockets, {percent(ratio)} of the "
        f"{size(round(row.formula_bytes))} that it has to send: {reason}."
    )
    debug = "NCCL_DEBUG=INFO" if nccl else "TORCH_CPP_LOG_LEVEL=INFO"
    return [Finding(kind="bytes", text=text, fix=rerun(view, "--env", debug), where=(row.collective,))]


def _chain_factor(view: ResultIndex, row: Collective) -> float:
    """Return by what factor NCCL may exceed the minimum in a broadcast or a reduce.

    Its chains start at the root, which may be in the middle of a node's ranks, and return to that node at their end.
    They then cross between nodes as often as there are nodes, instead of once less.
    """
    nodes = view.setup.nodes
    inside = view.setup.backend == "nccl" and row.root >= 0 and view.setup.ranks > nodes > 1
    return nodes / (nodes - 1) if inside else 1.0


def _interface(view: ResultIndex) -> list[Finding]:
    line = view.line
    sockets = interface = 0
    formula = 0.0
    for row in view.large:
        if row.sockets_bytes and row.interface_bytes and view.network in row.interface_bytes:
            sockets += row.sockets_bytes.get(view.network, 0)
            interface += row.interface_bytes[view.network]
            formula += row.formula_bytes
    mtus = [node.mtus[view.network] for node in view.results.nodes if view.network in node.mtus]
    if not sockets or not mtus or min(mtus) < 200:
        return []
    if sockets < thresholds.FEWER_BYTES * formula and _no_sockets(view):
        return []  # whether an interface counts RDMA depends on its driver
    around = (min(mtus) + 14) / payload(min(mtus), line.family if line else 6)
    if interface > thresholds.INTERFACE_MORE * around * sockets:
        extra = interface - around * sockets
        text = (
            f"{view.network} sent {size(interface)} while the ranks' sockets sent {size(sockets)}: about "
            f"{size(round(extra))} are not their payload, but other traffic of the node or retransmissions."
        )
    elif interface < thresholds.FEWER_BYTES * sockets and view.setup.ranks == view.setup.nodes:
        text = (
            f"{view.network} sent {size(interface)}, less than the ranks' sockets ({size(sockets)}): the bytes "
            "leave the nodes another way."
        )
    else:
        return []
    # The pod's interface is gone, and the name of the host's interface below it is not known.
    fix = on_hosts(view, "ip -s link") if view.setup.on == "kubernetes" else check_network(view)
    return [Finding(kind="bytes", text=text, fix=fix, where=(view.network,))]
