"""The exact wording of the benchmark, in golden files: the summary, the report, findings, comparisons and errors."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from tests import golden
from tests.unit.bench_asked import GIB, PODS, a_plan, wrong
from tests.unit.bench_faults import changed_setup, made
from tests.unit.bench_results import SIZES, changed, healthy, slower
from tests.unit.report_page import everything, read
from torchnet.bench import job
from torchnet.bench.aggregation import RunContext, RunEnding, results
from torchnet.bench.comparison import compare
from torchnet.bench.comparison_text import text
from torchnet.bench.findings import find
from torchnet.bench.html import html
from torchnet.bench.results import Finding, Lacking, Results, dump
from torchnet.bench.results_file import read as read_file
from torchnet.bench.summary import FINDINGS, render
from torchnet.config.validation_errors import SpecError

EXACT: dict[str, Any] = {"noise": 0.0, "wander": 0.0}


def titled(parts: dict[str, str]) -> str:
    return "\n".join(f"=== {title} ===\n{part.rstrip()}\n" for title, part in parts.items())


def with_rows(base: Results, **fields: Any) -> Results:
    """The results with these fields in each row of the collectives."""
    return changed(base, collectives=tuple(row.model_copy(update=fields) for row in base.collectives))


def scaled(base: Results, name: str, factor: float) -> Results:
    """The results with the byte counts ``name`` of each collective multiplied."""

    def value(row: Any) -> Any:
        count = getattr(row, name)
        return (
            {key: int(n * factor) for key, n in count.items()} if isinstance(count, dict) else count * factor
        )

    rows = [row.model_copy(update={name: value(row)}) for row in base.collectives]
    return changed(base, collectives=tuple(rows))


def test_summary() -> None:
    slow = healthy(
        4, compare="eth0", sizes=SIZES[::4], path=lambda a, b: 0.1 if (a, b) == (2, 1) else 1.0, **EXACT
    )
    rows = [slower(row, 0.25) if row.network == "eth0" else row for row in slow.collectives]
    slow = changed(
        slow, collectives=tuple(rows), lacks=(Lacking(what="all_to_all (gloo)", why="not supported"),)
    )
    unjudged = Lacking(what=FINDINGS, why="internal error: KeyError: 'net1'")
    pods = healthy(rate=None, on="kubernetes", sizes=SIZES[:1], backend="nccl", per_node=8, **EXACT)
    early: dict[str, Any] = {"setup": None, "complete": False, "reason": "no carrier"}
    golden.check(
        "bench-summary.txt",
        titled(
            {
                "healthy": render(healthy(**EXACT), written=["r.json (results)"]),
                "findings": render(changed(slow, findings=find(slow))),
                "early end": render(
                    changed(healthy(sizes=SIZES[:1], **EXACT), complete=False, reason="node-1 was lost")
                ),
                "14 nodes": render(healthy(14, sizes=SIZES[:1], **EXACT)),
                "Kubernetes, unknown line": render(changed(pods, lacks=(unjudged,), proof="unknown")),
                "unknown line": render(healthy(rate=None, compare="eth0", sizes=SIZES[:1], **EXACT)),
                "one node": render(changed(healthy(1, rate=None, sizes=(), **EXACT))),
                "refused": render(Results(torchnet="0.1.0", date="2026-01-02", run="bench-1", **early)),
            }
        ),
    )


def faults() -> dict[str, Results]:
    """Results with one fault each; the names are for people."""
    exact = {"sizes": SIZES[::4], **EXACT}
    flow: dict[str, Any] = {
        "known": "interface",
        "rate": 2e9,
        "one_stream": 0.5,
        "core": 0.1,
        "achieved": 0.45,
    }
    window: dict[str, Any] = {"one_stream": 0.5, "window_limited": 0.9, "achieved": 0.9}
    buffers: dict[str, Any] = {"rate": 10e9, "round_trip": 0.02, "one_stream": 0.2, "window_limited": 0.9}
    configured = changed_setup(healthy(2, strays=1.0, **exact), environment={"GLOO_SOCKET_IFNAME": "eth0"})
    lost = {"complete": False, "exit_code": 70, "reason": "node-1 was lost"}
    failure = {
        "kind": "network",
        "node": "node-1",
        "text": "node-1: net1 has MTU 1500\n  fix: torchnet verify",
    }
    context = RunContext(
        "local", ("torchnet", "bench"), ("torchnet", "bench", "--dry-run"), "2026-01-02", "0.1.0"
    )
    return {
        "mtu": made(3, mtus={1: 1500}, **exact),
        "slow node": made(3, on="kubernetes", path=lambda a, b: 0.1 if 1 in (a, b) else 1.0, **exact),
        "slow pair": made(4, path=lambda a, b: 0.1 if {a, b} == {1, 2} else 1.0, **exact),
        "two nodes": made(2, path=lambda _a, _b: 0.1, throttled=0.1, **exact),
        "all pairs": made(4, path=lambda _a, _b: 0.4, **exact),
        "direction": made(2, path=lambda a, b: 0.1 if (a, b) == (1, 0) else 1.0, **exact),
        "sender": made(4, path=lambda a, _b: 0.1 if a == 1 else 1.0, **exact),
        "loss": made(3, repeats=lambda a, b: 0.02 if 1 in (a, b) else 0.0, **exact),
        "stream: window": made(2, **window, **exact),
        "stream: core": made(2, one_stream=0.6, core=0.99, achieved=0.6, **exact),
        "stream: path": made(2, **flow, **exact),
        "processor: cores": made(4, path=lambda _a, _b: 0.6, busy=0.97, **exact),
        "processor: thread": made(2, path=lambda _a, _b: 0.6, core=0.99, streams=(4,), **exact),
        "processor: quota": made(2, path=lambda _a, _b: 0.6, throttled=0.3, **exact),
        "buffers": made(2, on="kubernetes", **buffers, **exact),
        "interface: sockets": made(2, strays=0.5, **exact),
        "interface: receipt": changed(with_rows(made(2, **exact), sockets_bytes=None), backend_share=0.4),
        "interface: environment": with_rows(
            changed_setup(configured, interface="eth0", compare="net1"), sockets_bytes=None
        ),
        "bytes: more": scaled(made(2, **exact), "formula_bytes", 2 / 3),
        "bytes: fewer": scaled(made(2, **exact), "formula_bytes", 2),
        "bytes: interface, more": scaled(made(2, **exact), "interface_bytes", 2),
        "bytes: interface, fewer": scaled(made(2, **exact), "interface_bytes", 0.5),
        "wrong results": with_rows(made(2, **exact), wrong=3),
        "slow collective": made(2, achieved=0.6, **exact),
        "noise": made(2, **{**exact, "noise": 0.5}),
        "lost": changed(made(2, on="kubernetes", **exact), **lost),
        "internal": changed(made(2, **exact), **{**lost, "ended": "internal", "reason": "ValueError: x"}),
        "network": results([], context, RunEnding(4, failure=failure)),
    }


def test_findings() -> None:
    parts = {}
    kinds = set()
    for name, faulty in faults().items():
        found = faulty.findings or find(faulty)
        kinds |= {one.kind for one in found}
        parts[name] = "\n".join(f"{one.kind}: {one.text}\n  -> {one.fix}" for one in found)
    golden.check("bench-findings.txt", titled(parts))
    listed = get_args(get_args(Finding.model_fields["kind"].annotation)[0])
    assert kinds == set(listed)


def test_comparison() -> None:
    few: dict[str, Any] = {"sizes": SIZES[::4]}
    old, same = healthy(seed=0, **few), healthy(seed=1, **few)
    slow = healthy(seed=1, path=lambda _a, _b: 0.8, **few)
    size = max(few["sizes"])
    one_row = [slower(row, 0.6) if row.size == size else row for row in same.collectives]
    bad = with_rows(changed(same, tcp=(), complete=False, reason="node-1 was lost"), wrong=1)
    finding = Finding(kind="slow-node", text="node-1 is slow.", fix="x", where=("node-1",))
    lacking = changed(same, latency=(), findings=(finding,), lacks=(Lacking(what="latency", why="no echo"),))
    noisy = healthy(seed=3, noise=0.9, batches=3, sizes=SIZES[-2:], path=lambda _a, _b: 0.7)
    cases = {
        "no change": (old, same),
        "slower": (old, slow),
        "faster": (slow, old),
        "one row": (old, changed(same, collectives=tuple(one_row))),
        "another line, wrong, early": (healthy(rate=9e8, **few), bad),
        "missing rows, new findings": (old, lacking),
        "noise": (healthy(noise=0.9, batches=3, sizes=SIZES[-2:]), noisy),
        "nothing in common": (old, changed(old, collectives=(), tcp=(), latency=())),
    }
    golden.check("bench-compare.txt", titled({name: text(compare(*pair)) for name, pair in cases.items()}))


def test_report() -> None:
    pages = {"everything": everything(), "healthy": healthy(2, sizes=SIZES[:2], **EXACT)}
    parts = {}
    for name, shown in pages.items():
        page = read(html(shown))
        tags = (
            "h1",
            "h2",
            "h3",
            "p",
            "dt",
            "dd",
            "li",
            "caption",
            "figcaption",
            "summary",
            "desc",
            "footer",
            "thead",
        )
        lines = [re.sub("[\u00a0\n ]+", " ", part).strip() for _, _, part in page.all(*tags)]
        parts[name] = "\n".join(dict.fromkeys(lines))
    golden.check("bench-report.txt", titled(parts))


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (2 * GIB, "on this machine"))
    options: list[tuple[str, dict[str, Any]]] = [
        ("al_reduce", {}), ("send_recv", {"redop": "sum", "root": "1"}),
        ("all_gather,broadcast", {"redop": "max"}), ("reduce_scatter", {"root": "0"}), ("", {"root": "1"}),
        ("", {"min_bytes": "8X"}), ("", {"max_bytes": "-1"}), ("", {"max_bytes": "0"}),
        ("", {"min_bytes": "2M", "max_bytes": "1M"}), ("", {"factor": "1"}), ("", {"factor": "nan"}),
        ("", {"factor": "1.01"}), ("", {"iters": "0"}), ("", {"iters": "3", "seconds": "1"}),
        ("", {"seconds": "0"}), ("", {"seconds": "2h"}), ("", {"tcp_seconds": "11min"}),
        ("", {"tcp_seconds": "1ms"}), ("", {"dtype": "float31"}), ("", {"redop": "mean"}),
        ("", {"streams": "65"}), ("", {"compare": "a/b"}), ("", {"line": "10Gbps"}), ("", {"line": "1"}),
        ("", {"html": "-"}), ("", {"html": "x", "json": "x"}),
    ]  # fmt: skip
    jobs: list[tuple[str, dict[str, object], dict[str, Any]]] = [
        ("", {}, {"backend": "nccl"}), ("", PODS, {"backend": "nccl"}), ("", {}, {"compare": "net1"}),
        ("", {}, {"compare": "eth7"}), ("", {"network.networks": ["loopback"]}, {"compare": "eth0"}),
        ("", {"nnodes": "1"}, {"compare": "eth0", "pairs": True, "streams": "4", "line": "10gbit"}),
        ("", {}, {"pairs": True, "streams": "4", "tcp_seconds": "0"}), ("broadcast", {}, {"root": "2"}),
        ("all", {}, {"redop": "avg", "dtype": "int32"}), ("reduce", PODS, {"redop": "avg", "dtype": "uint8"}),
        ("reduce", {}, {"redop": "avg", "dtype": "int8", "backend": "gloo"}), ("", {}, {"max_bytes": "1G"}),
        ("", PODS, {"max_bytes": "1G"}),
    ]  # fmt: skip
    lines = [line for words, given in options for line in wrong(*words.split(), **given)]
    for words, flags, given in jobs:
        with pytest.raises(SpecError) as caught:
            a_plan(*words.split(), flags=flags, **given)
        lines += [str(problem) for problem in caught.value.problems]
    lines += a_plan().notices
    whole = dump(healthy(sizes=SIZES[:1]))
    for content in ("{", "[]", whole.replace("bench/1", "bench/2")):
        with pytest.raises(ValueError, match="old.json") as error:
            read_file(content, "old.json")
        lines.append(str(error.value))
    golden.check("bench-errors.txt", "\n".join(lines))
