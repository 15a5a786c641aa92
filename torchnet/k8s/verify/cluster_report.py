"""What ``torchnet verify`` has found out about nodes and paths, and its document for ``-o json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet.k8s.verify.check import Check, Result
from torchnet.k8s.verify.paths import Path, faulty_nodes
from torchnet.network.attachment import NetworkAttachment

FORMAT = "torchnet.verify/1"


@dataclass
class ClusterReport:
    """The nodes and the paths of a verification, as far as it got.

    Attributes:
        nodes: By node, its result and the reason; "" without a reason.
        networks: The attachments, one for each rail.
    """

    nodes: dict[str, tuple[Result, str]] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    networks: Sequence[NetworkAttachment] = ()

    def judge_paths(self) -> None:
        """Give each node of a path its result; a node that has failed already keeps its reason."""
        guilty = faulty_nodes(self.paths)
        reaching = {node for path in self.paths if path.works for node in (path.one, path.other)}
        for path in self.paths:
            for node in (path.one, path.other):
                if node in self.nodes and self.nodes[node][0] == "fail":
                    continue
                self.nodes[node] = ("ok", "") if node in reaching else _NO_PATH
                if node in guilty:
                    self.nodes[node] = ("fail", "failed, or was slow, with all of its partners")


_NO_PATH: tuple[Result, str] = ("unknown", "no path works")


def document(cluster_report: ClusterReport, checks: Sequence[Check], exit_code: int) -> dict[str, Any]:
    """Return the document of ``-o json``, whose fields docs/verify.md describes."""
    results = {check.result for check in checks}
    return {
        "format": FORMAT,
        "result": "fail" if exit_code else "unknown" if "unknown" in results else "ok",
        "exit_code": exit_code,
        "networks": [{"rail": one.interface, "attachment": one.path} for one in cluster_report.networks],
        "faulty_nodes": sorted(
            name for name, (result, _) in cluster_report.nodes.items() if result == "fail"
        ),
        "checks": [
            {
                "name": check.name,
                "result": check.result,
                "evidence": check.evidence,
                "fix": (check.fix or None) if check.result != "ok" else None,
            }
            for check in checks
        ],
        "nodes": [
            {"name": name, "result": result, "reason": why or None}
            for name, (result, why) in sorted(cluster_report.nodes.items())
        ],
        "paths": [
            {
                "nodes": [path.one, path.other],
                "rail": path.rail,
                "result": "ok" if path.works else "fail",
                "reason": path.problem or None,
                "packet_bytes": path.size,
                "bytes_per_s": [None if rate is None else round(rate) for rate in (path.there, path.back)],
            }
            for path in cluster_report.paths
        ],
    }
