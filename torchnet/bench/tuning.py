"""What a tuning found: ratios within each round, the setting to take, and the block of settings that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torchnet.bench.aggregation import figure
from torchnet.bench.results import Figure, Trial, Tuning
from torchnet.bench.worker.messages import Tried
from torchnet.bench.worker.stats import LEAST
from torchnet.units import counted

STARTED = 2  # the group of what was started for itself, with what the groups before it had chosen
WORTH = 1.02  # of the baseline, which the low end of a ratio's interval has to exceed


def tuning(tried: Sequence[Tried], *, numerics: bool, about: str) -> Tuning | None:
    """None where nothing was tried beside a baseline. What fewer than LEAST rounds had is told, and not chosen.

    Args:
        tried: as the ranks said it: a baseline, then what was measured by turns with it, and so on, after each round.
        numerics: whether what changes the results may be chosen, since the user asked for it.
        about: what it was measured on, for a line of comment.
    """
    groups = list(_trials(tried))
    trials = [one for _, one in groups]
    if all(one.baseline for one in trials):
        return None
    chosen: dict[str, str] = {}
    for later in (False, True):
        allowed = [
            one
            for group, one in groups
            if (group >= STARTED) == later
            and not one.baseline
            and one.ratio.count >= LEAST
            and one.ratio.low > WORTH
            and (numerics or not one.numerics)
        ]
        if allowed:
            chosen = max(allowed, key=lambda one: one.ratio.median).settings
    return Tuning(trials=tuple(trials), chosen=chosen, block=block(trials, chosen, about))


def _trials(tried: Sequence[Tried]) -> Iterator[tuple[int, Trial]]:
    """Each with its group."""
    baseline: list[float] = []
    for one in {(one.group, one.name): one for one in tried}.values():
        if one.baseline:
            baseline = one.steps_per_s
        pairs = [(figure, base) for figure, base in zip(one.steps_per_s, baseline, strict=False) if base > 0]
        if not pairs:
            continue
        yield (
            one.group,
            Trial(
                name=one.name,
                settings=one.settings,
                steps_per_s=figure([rate for rate, _ in pairs]),
                ratio=figure([rate / base for rate, base in pairs]),
                numerics=one.numerics,
                baseline=one.baseline,
            ),
        )


def block(trials: Sequence[Trial], chosen: Mapping[str, str], about: str) -> str:
    """TOML for pyproject.toml, with the evidence as comments; comments alone where nothing is chosen."""
    lines = [
        f"# torchnet bench --tune: {_comment(about)}",
        "# DDP's steps/s, and how many times the baseline's of the same round that is",
        f"# (of {LEAST} rounds and more with the 95 % interval):",
    ]
    for one in trials:
        ratio = "baseline" if one.baseline else _interval(one.ratio)
        mark = " <- chosen" if chosen and one.settings == dict(chosen) and not one.baseline else ""
        note = " (changes the results)" if one.numerics else ""
        lines.append(f"#   {one.steps_per_s.median:8.3f}  {ratio:34}  {_comment(one.name)}{note}{mark}")
    if not chosen:
        return "\n".join([*lines, "# Nothing was reliably faster than its baseline.", ""])
    for table in ("network", "tune"):
        names = [name for name in sorted(chosen) if _place(name)[0] == table]
        lines += [f"[tool.torchnet.{table}]"] if names else []
        lines += [f"{_place(name)[1]} = {_value(chosen[name])}" for name in names]
    if chosen.keys() & {"bucket_cap_mb", "compress"}:
        lines.append("# bucket_cap_mb and compress are for scripts that call torchnet.tune(model)")
    return "\n".join([*lines, ""])


def _place(name: str) -> tuple[str, str]:
    """A setting's table and its name there."""
    table, dot, key = name.partition(".")
    return (table, key) if dot else ("tune", name)


def _interval(figure: Figure) -> str:
    return f"{figure.median:.3f} ({figure.low:.3f} to {figure.high:.3f}, {counted(figure.count, 'round')})"


def _comment(text: str) -> str:
    """On one line, as TOML's comments are, without control characters."""
    return "".join(one if one.isprintable() else " " for one in text)


def _value(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
