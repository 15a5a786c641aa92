"""What is made of a tuning's figures: ratios by round, the choice, and a block that torchnet reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.asked import asked
from torchnet.bench.tuning import tuning
from torchnet.bench.worker.messages import Tried

BASE = Tried("as torch has it", {}, [1.0, 1.1, 0.9, 1.0, 1.05, 0.95], numerics=False, baseline=True)


def times(ratio: float, settings: dict[str, str], base: Tried = BASE, *, numerics: bool = False) -> Tried:
    name = ", ".join(f"{k} {v}" for k, v in settings.items())
    return Tried(name, settings, [one * ratio for one in base.steps_per_s], numerics)


def chosen(*tried: Tried, numerics: bool = False) -> dict[str, str]:
    found = tuning([BASE, *tried], numerics=numerics, about="two nodes")
    assert found is not None
    return found.chosen


def test_the_fastest_that_is_surely_better_is_chosen() -> None:
    small, two = times(1.1, {"bucket_cap_mb": "5"}), times(1.2, {"gloo_devices": "2"})
    assert chosen(small, two) == {"gloo_devices": "2"}
    # Twice as fast in the median, but once it was not: nobody knows.
    doubtful = Tried("x", {"gloo_devices": "4"}, [2.0, 2.2, 1.8, 2.0, 2.1, 0.9], numerics=False)
    assert chosen(small, doubtful) == {"bucket_cap_mb": "5"}
    assert chosen(times(1.015, {"bucket_cap_mb": "5"})) == {}


def test_what_changes_the_results_is_chosen_only_where_it_was_asked_for() -> None:
    small = times(1.1, {"bucket_cap_mb": "5"})
    half = times(1.8, {"bucket_cap_mb": "5", "compress": "bf16"}, numerics=True)
    assert chosen(small, half) == {"bucket_cap_mb": "5"}
    assert chosen(small, half, numerics=True) == {"bucket_cap_mb": "5", "compress": "bf16"}
    found = tuning([BASE, small, half], numerics=False, about="")
    assert found is not None
    assert "compress" not in [line for line in found.block.splitlines() if not line.startswith("#")]
    assert "(changes the results)" in found.block


def test_ratios_are_to_the_baseline_of_the_same_round() -> None:
    """A machine that becomes slow halfway slows both; and a second group has a baseline of its own."""
    first = Tried("", {}, [2.0, 2.0, 2.0, 1.0, 1.0, 1.0], numerics=False, baseline=True)
    second = Tried("", {}, [0.5] * 6, numerics=False, baseline=True, group=1)
    a, b = times(1.5, {"bucket_cap_mb": "1"}, first), times(1.3, {"gloo_devices": "2"}, second)
    found = tuning([first, a, second, b], numerics=False, about="")
    assert found is not None
    ratios = [(one.ratio.low, one.ratio.median, one.ratio.high) for one in found.trials]
    assert ratios == [pytest.approx((r, r, r)) for r in (1.0, 1.5, 1.0, 1.3)]
    assert [one.baseline for one in found.trials] == [True, False, True, False]


def test_a_group_that_ended_early_counts_as_far_as_it_came() -> None:
    assert tuning([], numerics=False, about="") is None
    assert tuning([BASE], numerics=False, about="") is None
    cut = Tried("x", {"bucket_cap_mb": "1"}, [1.5, 1.65], numerics=False)
    found = tuning([BASE, cut], numerics=False, about="")
    assert found is not None
    assert found.trials[1].ratio.count == 2
    # Too few rounds for an interval: it is told, and not chosen.
    assert found.chosen == {}
    assert chosen(Tried("x", {"bucket_cap_mb": "1"}, [1.5, 1.65, 1.35, 1.5, 1.6, 1.4], numerics=False))


def test_of_what_was_said_after_each_round_the_last_counts() -> None:
    def said(base: Tried, *others: Tried, rounds: int = 6) -> list[Tried]:
        return [
            replace(one, steps_per_s=one.steps_per_s[:count])
            for count in range(1, rounds + 1)
            for one in (base, *others)
        ]

    a, b = times(1.5, {"bucket_cap_mb": "1"}), times(0.9, {"gloo_devices": "2"})
    # The second group has the first one's names, a baseline of its own, and was interrupted.
    later = Tried(BASE.name, {}, [2.0] * 6, numerics=False, baseline=True, group=1)
    c = replace(times(1.7, {"bucket_cap_mb": "1"}, later), group=1)
    found = tuning([*said(BASE, a, b), *said(later, c, rounds=3)], numerics=False, about="")
    assert found is not None
    seen = [(one.ratio.count, one.ratio.median, one.baseline) for one in found.trials]
    assert seen == [
        (6, 1.0, True), (6, pytest.approx(1.5), False), (6, pytest.approx(0.9), False),
        (3, 1.0, True), (3, pytest.approx(1.7), False),
    ]  # fmt: skip
    assert found.chosen == {"bucket_cap_mb": "1"}


def test_what_was_started_for_itself_goes_with_what_was_chosen_before() -> None:
    small = times(1.2, {"bucket_cap_mb": "1"})
    base = Tried("bucket_cap_mb 1", small.settings, [2.0] * 6, numerics=False, baseline=True, group=2)
    both = {**small.settings, "network.mtu": "9000"}

    def found(ratio: float) -> dict[str, str]:
        return chosen(small, base, replace(times(ratio, both, base), group=2))

    assert found(1.04) == both  # though less over its baseline than the other over torch's own
    assert found(1.01) == small.settings
    told = tuning([BASE, small, base, replace(times(1.04, both, base), group=2)], numerics=False, about="")
    worse = tuning([BASE, small, base, replace(times(1.01, both, base), group=2)], numerics=False, about="")
    for one, name in ((told, "bucket_cap_mb 1, network.mtu 9000"), (worse, "bucket_cap_mb 1")):
        assert one is not None
        marked = [line for line in one.block.splitlines() if line.endswith("<- chosen")]
        assert [line.split("  ")[-1] for line in marked] == [f"{name} <- chosen"]  # and no baseline


@given(
    about=st.text(max_size=40),
    settings=st.fixed_dictionaries(
        {},
        optional={
            "bucket_cap_mb": st.sampled_from(["1", "5", "0.5", "100"]),
            "gloo_devices": st.sampled_from(["2", "4"]),
            "compress": st.sampled_from(["bf16", "fp16"]),
            "network.mtu": st.sampled_from(["1500", "9000"]),
        },
    ).filter(bool),
)
def test_torchnet_reads_the_block_back(
    about: str, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = tuning([BASE, times(2.0, settings, numerics="compress" in settings)], numerics=True, about=about)
    assert found is not None
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text(f"[tool.torchnet]\nnnodes = 3\n\n{found.block}", encoding="utf-8")
    job = asked(folder, {}).job
    assert job.nnodes == 3
    told = {name: getattr(job.tune, name) for name in job.tune.model_fields_set}
    told |= {f"network.{name}": getattr(job.network, name) for name in job.network.model_fields_set}
    assert {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in told.items()} == settings


def test_a_block_without_a_choice_changes_nothing(tmp_path: Path) -> None:
    found = tuning([BASE, times(0.9, {"bucket_cap_mb": "1"})], numerics=True, about="two nodes")
    assert found is not None
    assert found.chosen == {}
    assert all(line.startswith("#") for line in found.block.splitlines())
    assert "0.900" in found.block
    (tmp_path / "pyproject.toml").write_text(f"[tool.torchnet]\n{found.block}")
    assert asked(tmp_path, {}).job.tune.model_fields_set == set()
