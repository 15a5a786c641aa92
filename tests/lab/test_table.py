"""The table of attachments on nodes with kernels of their own, and what docs/attachments.md makes of it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.addons import ROOT
from tests.golden import UPDATE
from tests.lab import machine, page, recipes, samples
from tests.lab.cases import ROUTED, ROWS, expected
from tests.leaks import watched
from torchnet.receipt import table
from torchnet.receipt.receipt_model import Receipt

NAME_VARIABLE = "TESTS_OF_TORCHNET_LAB"
MOST_SECONDS = 1800.0  # beside other tests
REFUSAL_SECONDS = 10.0


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of one boot; made by a process of its own, whose names and files no other lab or cluster has."""
    if given := os.environ.get("TESTS_OF_TORCHNET_LAB_RESULTS"):  # of an earlier `python -m tests.lab run`
        results: dict[str, Any] = json.loads(Path(given).read_text())
        return results
    if obstacles := machine.obstacles():
        pytest.skip("no lab on this machine: " + "; ".join(obstacles))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    # The first build takes minutes: show its progress.
    with capture.global_and_fixture_disabled() if not recipes.built() else nullcontext():
        recipes.build()
    file = tmp_path_factory.mktemp("lab") / "results.json"
    with watched(grace=20), _lab() as (name, lab):
        done = subprocess.run(
            [*lab, "run", str(file)],
            cwd=ROOT,
            timeout=MOST_SECONDS,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {NAME_VARIABLE: name},
        )
    left = [path.name for path in Path("/run/netns").glob(f"{name}-*")]
    assert not left, f"network namespaces were left: {left}"
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    with capture.global_and_fixture_disabled():
        rows = ", ".join(f"{row['seconds']:.0f}" for row in results["rows"])
        print(f"\nthe lab: {results['seconds']:.0f} s, its rows {rows} s")
    return results


@contextmanager
def _lab() -> Iterator[tuple[str, list[str]]]:
    """A name for a lab, and its command; it is taken down whatever happens, also when this process is killed."""
    name, lab = f"torchnet-lab-{os.getpid()}", [sys.executable, "-m", "tests.lab"]
    # Reads until this process is gone or says that all is done.
    watching = f"read -r word || exec {' '.join(lab)} down"
    environment = os.environ | {NAME_VARIABLE: name}
    with subprocess.Popen(
        ["sh", "-c", watching],
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env=environment,
    ) as guard:
        assert guard.stdin is not None
        try:
            yield name, lab
        finally:
            subprocess.run([*lab, "down"], cwd=ROOT, check=False, env=environment)
            guard.stdin.write("down\n")
            guard.stdin.flush()
            guard.wait()


def row_of(found: dict[str, Any], kind: str, mode: str, ipam: str) -> dict[str, Any]:
    (row,) = [one for one in found["rows"] if (one["kind"], one["mode"], one["ipam"]) == (kind, mode, ipam)]
    assert "error" not in row, row["error"]
    return row  # type: ignore[no-any-return]


def experiment(found: dict[str, Any], name: str) -> dict[str, Any]:
    tried: dict[str, Any] = found["experiments"][name]
    assert "error" not in tried, tried["error"]
    return tried


@pytest.mark.parametrize(("kind", "mode", "ipam"), ROWS, ids=["-".join(filter(None, row)) for row in ROWS])
def test_a_row(found: dict[str, Any], kind: str, mode: str, ipam: str) -> None:
    row = row_of(found, kind, mode, ipam)
    # The interface is what the attachment says; ADD and DEL have succeeded, or there were an error.
    for one, network in zip(row["net1"], expected(kind, mode, ipam), strict=True):
        assert one["kind"] == ("veth" if kind == "bridge" else kind)
        assert one["mode"] in ((mode,) if kind != "bridge" else ("",))
        assert one["mtu"] == 9000
        (address,) = one["ips"]
        assert ipaddress.ip_address(address) in ipaddress.ip_network(network)
    assert len({one["ips"][0] for one in row["net1"]}) == 4
    if mode in ROUTED and ipam == "whereabouts":
        assert row["across"]["result"] == "refused"
        assert "--mode l2" in row["across"]["reason"]
        assert "requires one --slice" in row["refused_manifest"]
        refused_in_time(row["refusal"])
        works(row["alone"], "same")
        return
    works(row, "same", "across")
    # Another witness: the kernel's counters, which also count what torchnet itself sends.
    assert row["counted"]["net1"] > 10_000_000
    assert row["counted"]["eth0"] < 1_000_000


def works(launch: dict[str, Any], *cells: str) -> None:
    """What docs/attachments.md means by that word."""
    assert set(launch["codes"]) == {0}
    assert launch["share"] >= page.LEAST_SHARE
    assert launch["all_paths"]
    assert launch["mtu"] == 9000
    for cell in cells:
        assert launch[cell]["result"] == "works"
        assert launch[cell]["share"] >= page.LEAST_SHARE
        assert launch[cell]["bytes"] > 5_000_000


def refused_in_time(tried: dict[str, Any]) -> None:
    """Before a script started, on all workers."""
    assert tried["code"] == 4
    assert 0 not in tried["codes"]
    assert tried["scripts"] == []
    assert tried["seconds"] < REFUSAL_SECONDS


def test_missing_routes_are_named_in_time_and_the_commands_help(found: dict[str, Any]) -> None:
    """The row itself shows that they help: its launch is the one after them."""
    missing = row_of(found, "ipvlan", "l3", "host-local")["without_routes"]
    refused_in_time(missing)
    assert missing["commands"] == [
        "node1: ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_NODE2",
        "node2: ip -6 route replace fcbb:0:800:1::/64 via ADDRESS_OF_NODE1",
    ]


def test_a_mac_filter_stops_macvlan_promiscuous_or_not_but_not_ipvlan(found: dict[str, Any]) -> None:
    tried, ipvlan = experiment(found, "mac_filter"), experiment(found, "mac_filter_ipvlan")
    for name in ("macvlan", "macvlan_promiscuous"):
        refused_in_time(tried[name])
        assert "most likely a hypervisor" in tried[name]["failure"]
    assert set(ipvlan["ipvlan"]["codes"]) == {0}
    # The kernel itself makes such a card promiscuous for macvlan: its driver cannot filter by several addresses.
    assert set(tried["promiscuity"].values()) == {1}
    assert set(ipvlan["promiscuity_of_ipvlan"].values()) == {0}


def test_a_router_with_routes_to_the_slices_is_enough(found: dict[str, Any]) -> None:
    tried = experiment(found, "router")
    works(tried, "same", "across")


def test_the_plugins_accept_what_lint_passes_and_corrects_and_nothing_that_it_refuses(
    found: dict[str, Any],
) -> None:
    """Each was called by itself with ADD, CHECK and DEL; a pod needs an interface with its address, and a status."""
    tried = experiment(found, "samples")["samples"]
    wrong = [one for one in tried if samples.is_usable(one) is not one["usable"]]
    assert not wrong, json.dumps(wrong, indent=1)
    counted = Counter(one["kind"] for one in tried)
    assert counted == {
        "guide": 6,
        "guide corrected": 6,
        "passed": samples.PASSED,
        "refused": samples.REFUSED,
        "corrected": samples.CORRECTED,
    }


def test_the_guides_commands_show_net1(found: dict[str, Any]) -> None:
    tried = experiment(found, "guide")
    own, other = tried["addresses"]
    attachments, status, addresses, shown, probed, pinged = tried["looks"].values()
    assert "\nbackend-network " in attachments
    assert json.loads(status)[1]["ips"] == [own]
    assert f"inet6 {own}/64 scope global" in addresses
    assert f"mtu 9000   {own}/64" in shown
    assert probed.count(f"9000 bytes from {own} reached {other}") == 3
    assert "3 packets transmitted, 3 received, 0% packet loss" in pinged


def test_the_example_trains_over_ipvlan_on_real_kubelets(found: dict[str, Any]) -> None:
    """With the shipped manifests, and the attachment that torchnet prints by default."""
    tried = experiment(found, "training")
    assert tried["code"] == 0, tried["err"]
    assert len(re.findall(r"node[12] +Ready .* containerd://", tried["nodes"])) == 2
    receipt = Receipt.model_validate(tried["receipt"])
    assert receipt.backend_share is not None
    assert receipt.backend_share >= page.LEAST_SHARE
    assert receipt.proof == "measured"
    assert table.exchanged(receipt) > 5_000_000
    assert (
        min(tried["ens5"].values()) > 2_500_000
    )  # another witness: each node's card has sent its worker's part
    assert "held-out accuracy 9" in tried["out"].splitlines()[-1]
    assert tried["left"] == ""


def test_the_page_shows_the_results(found: dict[str, Any]) -> None:
    file, text = ROOT / page.FILE, page.render(found)
    if os.environ.get(UPDATE):
        file.write_text(text)
    assert page.same(file.read_text(), text), "TESTS_OF_TORCHNET_UPDATE_GOLDEN=1 python -m pytest tests/lab"
