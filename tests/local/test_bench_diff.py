"""Two real runs side by side: a tenth less is told as such, in both directions, and the same network as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import TORCHNET, Ended, Job
from torchnet.bench.results import load

pytestmark = pytest.mark.quiet

SERIES = ("-b", "1M", "-e", "16M", "-f", "2", "--seconds", "0.6", "--tcp-seconds", "1")


def bench(*words: object) -> Ended:
    with Job(*words, command=(*TORCHNET, "bench")) as job:
        return job.finish()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name, rate in (("first", "500mbit"), ("slower", "450mbit"), ("again", "500mbit")):
        found[name] = folder / f"{name}.json"
        ended = bench(*SERIES, "--rate", rate, "--json", found[name])
        assert ended.code == 0, ended.stderr
        assert load(found[name].read_text()).findings == (), "a healthy network"
    return found


def test_a_tenth_less_is_slower(runs: dict[str, Path]) -> None:
    ended = bench("diff", runs["first"], runs["slower"])
    assert ended.code == 1, ended.stdout
    for what in ("all_reduce", "TCP"):
        assert any(what in line and "slower" in line for line in ended.stdout.splitlines()), ended.stdout


def test_a_tenth_more_is_faster(runs: dict[str, Path]) -> None:
    ended = bench("diff", runs["slower"], runs["first"])
    assert ended.code == 0, ended.stdout
    for what in ("all_reduce", "TCP"):
        assert any(what in line and "faster" in line for line in ended.stdout.splitlines()), ended.stdout


def test_the_same_network_is_the_same(runs: dict[str, Path]) -> None:
    ended = bench("diff", runs["first"], runs["again"])
    assert ended.code == 0, ended.stdout
    assert "slower" not in ended.stdout
    assert "faster" not in ended.stdout
