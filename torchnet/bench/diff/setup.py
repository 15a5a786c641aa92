"""What is different besides the figures, and may be their reason."""

from __future__ import annotations

from torchnet.bench.results import Results


def setup(old: Results, new: Results) -> tuple[str, ...]:
    """A sentence for each difference."""
    found = []
    for side, results in (("old", old), ("new", new)):
        if not results.complete:
            found.append(f"the {side} run did not come to its end: {results.reason or 'no reason is known'}")
    if any(row.wrong for row in old.collectives):
        found.append("the old run has wrong results")
    before, after = _facts(old), _facts(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            found.append(f"{name}: {before.get(name, 'none')}, now {after.get(name, 'none')}")
    return tuple(found)


def _facts(results: Results) -> dict[str, str]:
    """What a run's figures depend on, by name."""
    found = {"torchnet": results.torchnet}
    if results.setup:
        one = results.setup
        for name in ("on", "backend", "device", "nodes", "ranks", "interface", "compare", "image"):
            if (value := str(getattr(one, name))) != "":
                found[name] = value
        found |= {f"version of {name}": value for name, value in one.versions.items()}
        # Some hold the run's own name: NCCL_HOSTID.
        run = results.run or "\0"
        found |= {name: value.replace(run, "RUN") for name, value in one.environment.items()}
    for line in results.lines:
        found[f"line of {line.network}"] = (
            f"{line.rate_bits_per_s / 1e9:.6g} Gbit/s ({line.known}), MTU {line.mtu}, IPv{line.family}"
        )
    for name in ("cpu", "kernel", "cores"):
        values = dict.fromkeys(str(getattr(node, name)) for node in results.nodes)
        if values:
            found[f"{name} of the nodes"] = ", ".join(values)
    interface = results.setup.interface if results.setup else ""
    mtus = dict.fromkeys(str(node.mtus[interface]) for node in results.nodes if interface in node.mtus)
    if mtus:
        found[f"MTU of {interface}"] = ", ".join(mtus)
    return found
