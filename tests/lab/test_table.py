"""The table of attachments on nodes with kernels of their own, and what docs/attachments.md makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.addons import ROOT
from tests.golden import UPDATE
from tests.lab import machine, page
from tests.lab.cases import IPAMS, KINDS, ROUTED
from torchnet.receipt import table
from torchnet.receipt.receipt_model import Receipt

pytestmark = pytest.mark.quiet  # refusals within seconds, on nodes that share this machine's processors
ROWS = [(kind, mode, ipam) for kind, mode in KINDS for ipam in IPAMS]
MOST_SECONDS = 900.0
REFUSAL_SECONDS = 10.0


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of one boot; made by a process of its own, whose names and files do not meet a cluster's."""
    if obstacles := machine.obstacles():
        pytest.skip("no lab on this machine: " + "; ".join(obstacles))
    if given := os.environ.get("TESTS_OF_TORCHNET_LAB_RESULTS"):  # of an earlier `python -m tests.lab run`
        results: dict[str, Any] = json.loads(Path(given).read_text())
        return results
    file = tmp_path_factory.mktemp("lab") / "results.json"
    lab = (sys.executable, "-m", "tests.lab")
    try:
        done = subprocess.run(
            [*lab, "run", str(file)],
            cwd=ROOT,
            timeout=MOST_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run([*lab, "down"], cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())  # type: ignore[no-any-return]


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
    # The interface is what the attachment says; ADD, CHECK and DEL have succeeded, or there were an error.
    for one in row["net1"]:
        assert one["kind"] == ("veth" if kind == "bridge" else kind)
        assert one["mode"] in ((mode,) if kind != "bridge" else ("",))
        assert (one["mtu"], len(one["ips"])) == (9000, 1)
    assert row["same"]["result"] == "works"
    assert row["same"]["share"] >= page.LEAST_SHARE
    if mode in ROUTED and ipam == "whereabouts":
        assert row["across"]["result"] == "refused"
        assert "--mode l2" in row["across"]["reason"]
        assert "requires one --slice" in row["refused_manifest"]
        return
    assert row["across"]["result"] == "works"
    assert row["across"]["share"] >= page.LEAST_SHARE
    assert row["share"] >= page.LEAST_SHARE
    assert row["all_paths"]
    assert row["mtu"] == 9000
    for cell in ("same", "across"):
        assert row[cell]["bytes"] > 20_000_000


def test_missing_routes_are_named_in_time_and_the_commands_help(found: dict[str, Any]) -> None:
    """The row itself shows that they help: its launch is the one after them."""
    missing = row_of(found, "ipvlan", "l3", "host-local")["without_routes"]
    assert missing["code"] == 4
    assert missing["seconds"] < REFUSAL_SECONDS
    assert missing["commands"] == [
        "node1: ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_NODE2",
        "node2: ip -6 route replace fcbb:0:800:1::/64 via ADDRESS_OF_NODE1",
    ]


def test_a_mac_filter_stops_macvlan_promiscuous_or_not_but_not_ipvlan(found: dict[str, Any]) -> None:
    tried, ipvlan = experiment(found, "mac_filter"), experiment(found, "mac_filter_ipvlan")
    assert set(tried["promiscuous"].values()) == {False}
    for name in ("macvlan", "macvlan_promiscuous"):
        assert tried[name]["code"] == 4
        assert "most likely a hypervisor" in tried[name]["failure"]
    assert ipvlan["ipvlan"]["code"] == 0


def test_a_router_with_routes_to_the_slices_is_enough(found: dict[str, Any]) -> None:
    tried = experiment(found, "router")
    assert (tried["across"]["result"], tried["same"]["result"]) == ("works", "works")


def test_the_example_trains_over_ipvlan_and_the_guides_commands_show_net1(found: dict[str, Any]) -> None:
    tried = experiment(found, "training")
    assert tried["code"] == 0, tried["failure"]
    receipt = Receipt.model_validate(tried["receipt"])
    assert receipt.backend_share is not None
    assert receipt.backend_share >= page.LEAST_SHARE
    assert table.exchanged(receipt) > 10_000_000
    assert len(receipt.nodes) == 2
    assert "held-out accuracy 9" in tried["said"][-1]
    own, other = tried["addresses"]
    attachments, status, addresses, shown, probed, pinged = tried["looks"].values()
    assert "\nbackend-network " in attachments
    assert json.loads(status)[1]["ips"] == [own]
    assert f"inet6 {own}/64 scope global" in addresses
    assert f"mtu 9000   {own}/64" in shown
    assert probed.count(f"9000 bytes from {own} reached {other}") == 3
    assert "3 packets transmitted, 3 received, 0% packet loss" in pinged


def test_the_page_shows_the_results(found: dict[str, Any]) -> None:
    file, text = ROOT / page.FILE, page.render(found)
    if os.environ.get(UPDATE):
        file.write_text(text)
    assert page.same(file.read_text(), text), "TESTS_OF_TORCHNET_UPDATE_GOLDEN=1 python -m pytest tests/lab"
