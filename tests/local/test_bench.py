"""``torchnet bench`` as people run it: the table, the files, and what is left of it when it ends early."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import TORCHNET, Ended, Job, until
from tests.schema import errors
from torchnet.bench.results import Results, load

BENCH = (*TORCHNET, "bench")
TINY = ("-b", "1K", "-e", "16K", "--iters", "3", "--warmup", "1", "--tcp-seconds", "0.2", "--rate", "1gbit")
ROOT = Path(__file__).resolve().parent.parent.parent


def bench(*words: object, **options: Any) -> Ended:
    with Job(*words, command=BENCH, **options) as job:
        return job.finish()


def results(text: str) -> Results:
    """What the schema that is shipped must allow."""
    assert not errors(json.loads(text), json.loads((ROOT / "torchnet/bench/results.schema.json").read_text()))
    return load(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Results]:
    path = tmp_path_factory.mktemp("bench") / "r.json"
    ended = bench("all_reduce,broadcast", *TINY, "--compare", "eth0", "--env", "SECRET=hush", "--json", path)
    assert ended.code == 0, ended.stderr
    return ended, results(path.read_text())


def test_every_size_of_every_collective_has_its_line(whole: tuple[Ended, Results]) -> None:
    ended, found = whole
    measured = {(one.network, one.collective, one.size) for one in found.collectives}
    assert measured == {
        (network, name, size)
        for network in ("net1", "eth0")
        for name in ("all_reduce", "broadcast")
        for size in (1024, 4096, 16384)
    }
    assert [one.wrong for one in found.collectives] == [0] * len(found.collectives)
    rows = re.findall(r"^ +(\d+) +(\d+) +float +(sum|none) +(-1|0) ", ended.stdout, re.MULTILINE)
    assert [(int(size), int(count)) for size, count, _, _ in rows] == [
        (1024, 256),
        (4096, 1024),
        (16384, 4096),
    ] * 2


def test_raw_tcp_and_latency_stand_beside_them(whole: tuple[Ended, Results]) -> None:
    ended, found = whole
    assert {(one.source, one.target, one.both) for one in found.tcp if one.network == "net1"} == {
        (0, 1, False), (1, 0, False), (0, 1, True), (1, 0, True)
    }  # fmt: skip
    assert re.search(r"^node-0 - node-1 ", ended.stdout, re.MULTILINE)
    assert found.latency


def test_the_line_is_what_shaped_it(whole: tuple[Ended, Results]) -> None:
    ended, found = whole
    assert [(line.network, line.known, line.mtu, line.family) for line in found.lines] == [
        ("net1", "shaped", 9000, 6)
    ]
    assert "IPv6 at MTU 9000" in ended.stdout
    assert "1 Gbit/s line, shaped by --rate" in ended.stdout


def test_the_figures_themselves_and_the_receipt_are_not_shown(whole: tuple[Ended, Results]) -> None:
    ended, _ = whole
    assert "torchnet-bench {" not in ended.stdout + ended.stderr
    assert "node, interface" not in ended.stderr


def test_the_command_is_kept_without_secrets(whole: tuple[Ended, Results]) -> None:
    _, found = whole
    assert found.setup is not None
    assert found.setup.command[:3] == ("torchnet", "bench", "all_reduce,broadcast")
    assert "SECRET=…" in found.setup.command
    assert "hush" not in json.dumps(found.model_dump(mode="json"))


def test_the_results_can_be_on_standard_output_alone() -> None:
    ended = bench("-b", "8", "-e", "8", "--iters", "1", "--tcp-seconds", "0", "--json", "-")
    found = results(ended.stdout)
    assert (ended.code, found.complete, found.tcp) == (0, True, ())
    assert found.backend_share == 1.0
    assert "all_reduce" in ended.stderr


def test_a_full_disk_leaves_the_results_on_standard_output() -> None:
    ended = bench("-b", "8", "-e", "8", "--iters", "1", "--tcp-seconds", "0", "--json", "/dev/full")
    assert ended.code == 0
    assert "No space left on device" in ended.stderr
    start, end = ended.stdout.index("{\n"), ended.stdout.index("\n}\n") + 3
    assert results(ended.stdout[start:end]).complete


def test_an_unwritable_file_is_told_before_anything_runs(tmp_path: Path) -> None:
    ended = bench(
        "-b", "8", "-e", "8", "--iters", "1", "--tcp-seconds", "0", "--json", tmp_path / "no" / "r.json"
    )
    warning = ended.stderr.index("the results will go to standard output")
    assert warning < ended.stderr.index("join:")


def endless(path: Path, *more: str) -> Job:
    """One that has some figures soon, and then lasts."""
    words = ("-b", "8", "-e", "8K", "-f", "1.04", "--iters", "2000", "--tcp-seconds", "0.2")
    return Job("all_reduce", *words, *more, "--json", path, command=BENCH)


def test_an_interrupted_one_writes_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with endless(path) as job:
        job.wait_for("measuring all_reduce")
        job.send(signal.SIGINT)
        ended = job.finish()
    found = results(path.read_text())
    assert (ended.code, found.exit_code, found.complete) == (130, 130, False)
    assert found.tcp
    assert "lost" not in [one.kind for one in found.findings]  # it was wished for
    assert (
        ended.stdout.rstrip().splitlines()[-2].startswith("INCOMPLETE: stopped by SIGINT; the figures above")
    )


def test_a_killed_rank_leaves_what_was_measured_before(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with endless(path) as job:
        job.wait_for("measuring all_reduce")
        until(lambda: 1 in job.ranks(), "rank 1 runs")
        os.kill(job.ranks()[1], signal.SIGKILL)
        ended = job.finish()
    found = results(path.read_text())
    assert (ended.code, found.exit_code, found.complete) == (137, 137, False)
    assert "rank 1 on node-1" in found.reason
    assert found.tcp
    assert "lost" in [one.kind for one in found.findings]
    assert "INCOMPLETE: rank 1 on node-1" in ended.stdout


def test_a_network_that_is_refused_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    ended = bench(*TINY, "--fault", "node-1:net1:no-carrier", "--json", path)
    found = results(path.read_text())
    assert (ended.code, found.exit_code, found.setup) == (4, 4, None)
    (finding,) = found.findings
    assert finding.kind == "network"
    assert "node-1: net1" in finding.text
    assert f"-> {finding.fix}" in ended.stdout
    assert "nothing was measured" in ended.stdout


def test_a_time_that_is_up_ends_it_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with endless(path, "--timeout", "8s") as job:
        ended = job.finish()
    found = results(path.read_text())
    assert (ended.code, found.complete) == (124, False)
    assert "--timeout" in found.reason
