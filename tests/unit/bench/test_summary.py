"""A benchmark's one screen, and its files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.bench_results import changed, healthy
from torchnet.bench import results as model
from torchnet.bench.benchmark import save
from torchnet.bench.results import Lacking, Results
from torchnet.bench.summary import NO_FINDINGS, render
from torchnet.bench.tables import number
from torchnet.errors import UsageError


def cells(text: str, size: int) -> list[str]:
    """The line of one size, by columns."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [str(size)])


def both_forms(results: Results) -> Results:
    again = [one.model_copy(update={"in_place": True, "wrong": 3}) for one in results.collectives]
    return changed(results, collectives=(*results.collectives, *again))


def test_it_has_nccl_tests_columns_and_the_share_of_the_line() -> None:
    """1 Gbit/s at MTU 9000 carries 8928 of 9014 bytes: 123.8 MB/s, of which this network reaches 98.5 %.

    256 MiB take 2.2012 s at that rate, and 0.24 ms of round trips.
    """
    text = render(healthy(noise=0.0, wander=0.0))
    assert cells(text, 268435456) == [
        "268435456", "67108864", "float", "sum", "-1", "2201427", "0.1219", "0.1219", "0", "98.4", "%"
    ]  # fmt: skip
    (pair,) = [line for line in text.splitlines() if line.startswith("node-0 - node-1")]
    assert pair.split()[3:] == ["0.9806"] * 4 + ["99.0", "%", "57.46", "143.7"]
    assert "all_reduce at 256M: busbw 0.9755 Gbit/s, 98.4 % of " in text


def test_the_bytes_of_both_witnesses_stand_beside_the_formula() -> None:
    results = healthy()
    largest = results.collectives[-1].model_copy(
        update={
            "formula_bytes": 2.0e9,
            "sockets_bytes": {"net1": 2_010_000_000},
            "interface_bytes": {"net1": 2_030_000_000, "eth0": 7},
        }
    )
    text = render(changed(results, collectives=(*results.collectives[:-1], largest)))
    assert "formula 2.000 GB, sockets 2.010 GB, interface net1 2.030 GB\n" in text
    assert text.count("bytes: formula") == 1
    within = largest.model_copy(update={"sockets_bytes": {"net1": 10**9, "lo": 10**9, "eth0": 1000}})
    text = render(changed(results, collectives=(within,)))
    counts = "sockets 2.000 GB (1.000 GB of it within nodes), interface net1 2.030 GB, interface eth0 7 B\n"
    assert counts in text
    unknown = largest.model_copy(update={"sockets_bytes": None, "interface_bytes": None})
    assert "bytes: formula" not in render(changed(results, collectives=(unknown,)))


def test_of_an_all_to_all_of_many_ranks_a_node_the_shares_are_of_what_the_line_carries() -> None:
    results = healthy(nodes=2, collectives=("all_to_all",))
    assert results.setup is not None
    assert "4.27 times" not in render(results)
    text = render(changed(results, setup=results.setup.model_copy(update={"ranks": 16})))
    assert "4.27 times" in text
    slowest = min(one.rate.median for one in results.tcp if one.both)
    assert f"{results.collectives[-1].busbw * (64 / 15) / slowest * 100:.1f} % of raw TCP" in text


def test_the_head_has_each_rail_and_the_network_beside() -> None:
    results = healthy(compare="eth0")
    rail = [row.model_copy(update={"network": "net2"}) for row in results.tcp if row.network == "net1"]
    line = results.lines[0].model_copy(update={"network": "net2"})
    more = changed(results, tcp=(*results.tcp, *rail), lines=(*results.lines, line))
    head = render(more).splitlines()[2:5]
    assert [text.split(":")[0] for text in head] == ["net1 (backend)", "net2 (backend)", "eth0 (compared)"]
    assert more.setup
    beside = more.setup.model_copy(update={"compare": "net2"})
    assert "net2 (compared): 1 Gbit/s line" in render(changed(more, setup=beside))


def test_a_share_of_raw_tcp_is_of_all_lines_that_nccl_uses() -> None:
    results = healthy(backend="nccl", environment={"NCCL_SOCKET_IFNAME": "=net1,net2"})
    slowest = min(one.rate.median for one in results.tcp if one.both)
    share = results.collectives[-1].busbw / (2 * slowest) * 100
    assert f"{share:.1f} % of raw TCP over 2 lines" in render(results)


def test_in_place_stands_beside_where_it_differs() -> None:
    text = render(both_forms(healthy()))
    row = cells(text, 1024)
    assert len(row) == 15
    assert (row[8], row[-1]) == ("0", "3")
    assert "out-of-place" in text
    assert "out-of-place" not in render(healthy())


def test_a_result_that_was_not_checked_is_no_zero() -> None:
    results = healthy()
    unchecked = tuple(one.model_copy(update={"wrong": None}) for one in results.collectives)
    assert cells(render(changed(results, collectives=unchecked)), 1024)[8] == "N/A"


def test_no_findings_are_only_claimed_where_they_were_looked_for() -> None:
    """The reason is given even if so much was not measured that the list is cut."""
    lacks = [Lacking(what=f"{number}", why="x") for number in range(20)]
    unjudged = changed(healthy(), lacks=(*lacks, Lacking(what="findings", why="a defect")))
    for results in (unjudged, changed(unjudged, complete=False, reason="x")):
        assert render(results).count("a defect") == 1
    early = changed(healthy(), complete=False, reason="x")
    nothing = changed(healthy(), collectives=(), tcp=())
    assert [NO_FINDINGS in render(one) for one in (healthy(), unjudged, early, nothing)] == [True] + [
        False
    ] * 3


def test_foreign_names_do_nothing_to_a_terminal() -> None:
    results = healthy()
    nodes = tuple(one.model_copy(update={"name": "\x1b[2Jx\r"}) for one in results.nodes)
    text = render(changed(results, nodes=nodes, reason="\x1b]0;x\x07", complete=False))
    assert "\x1b" not in text
    assert "\r" not in text


def test_colours_are_for_those_who_asked() -> None:
    assert "\x1b[1mtorchnet bench" in render(healthy(), color=True)
    assert "\x1b" not in render(healthy())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.2345, "1.234"), (117.94, "117.9"), (20613.4, "20613"), (0, "0.0000")],
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A report in place of the real one, which takes a plotting library."""
    module: Any = ModuleType("torchnet.bench.html")
    module.html = lambda _: "<!doctype html>"
    monkeypatch.setitem(sys.modules, "torchnet.bench.html", module)
    import torchnet.bench

    monkeypatch.setattr(torchnet.bench, "report", module, raising=False)
    return module


def test_files_are_written_and_named(tmp_path: Path, report: Any) -> None:
    json_path, html_path = str(tmp_path / "r.json"), str(tmp_path / "r.html")
    out, err = io.StringIO(), io.StringIO()
    written = save(healthy(), json_path, html_path, stdout=out, stderr=err)
    assert written == [f"{json_path} (results)", f"{html_path} (report)"]
    assert model.load(Path(json_path).read_text()) == healthy()
    assert Path(html_path).read_text() == "<!doctype html>"
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_a_full_disk_leaves_the_results_on_standard_output(report: Any) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert save(healthy(), "/dev/full", None, stdout=out, stderr=err) == []
    assert model.load(out.getvalue()) == healthy()
    assert "/dev/full" in err.getvalue()
    assert "No space left on device" in err.getvalue()


def test_a_report_that_cannot_be_written_leaves_them_there_too_and_once(tmp_path: Path, report: Any) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert save(healthy(), None, "/dev/full", stdout=out, stderr=err) == []
    assert model.load(out.getvalue()) == healthy()
    assert err.getvalue().count("\n") == 1
    out, err = io.StringIO(), io.StringIO()
    assert save(healthy(), str(tmp_path / "r.json"), "/dev/full", stdout=out, stderr=err) != []
    assert out.getvalue() == ""


def test_a_report_that_cannot_be_made_costs_no_results(report: Any) -> None:
    def fails(_: object) -> str:
        raise UsageError("matplotlib is missing")

    report.html = fails
    out, err = io.StringIO(), io.StringIO()
    assert save(healthy(), None, "r.html", stdout=out, stderr=err) == []
    assert json.loads(out.getvalue())["complete"] is True
    assert "UsageError: matplotlib is missing" in err.getvalue()
