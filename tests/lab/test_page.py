"""The page that the lab writes: what may differ from run to run, and that nothing is claimed which was not tried."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab import page

VERSIONS = {"kernel": "6.1", "plugins": "v1", "multus": "v4", "whereabouts": "v0"}
ROW: dict[str, Any] = {"kind": "ipvlan", "mode": "l2", "ipam": "static", "note": "", "seconds": 20}


def rendered(*rows: dict[str, Any], **experiments: Any) -> str:
    return page.render({"rows": list(rows), "experiments": experiments, "versions": VERSIONS})


def line_of(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("| `ipvlan` | `l2` | `static` |")]
    return line


def test_a_cell_says_what_happened_and_no_more() -> None:
    works, little = {"result": "works", "share": 1.0}, {"result": "works", "share": 0.42}
    assert line_of(rendered()) == "| `ipvlan` | `l2` | `static` | not tried | not tried | |"
    assert line_of(rendered(ROW)) == "| `ipvlan` | `l2` | `static` | failed | failed | |"
    assert "| works | works, 42.0% on net1 | |" in line_of(rendered({**ROW, "same": works, "across": little}))
    assert "| works | refused | |" in line_of(
        rendered({**ROW, "same": works, "across": {"result": "refused"}})
    )
    assert "macvlan and promiscuous mode" not in rendered(mac_filter={"macvlan": {"code": 4, "failure": ""}})


def test_no_sentence_contradicts_the_results() -> None:
    refused, worked = (
        {"code": 4, "failure": "preflight: nothing that pods sent arrived"},
        {"code": 0, "failure": ""},
    )
    macvlan = {"macvlan": refused, "macvlan_promiscuous": refused, "promiscuity": {"node1": 1}}
    ipvlan = {"ipvlan": worked, "promiscuity_of_ipvlan": {"node1": 0}}
    text = rendered(mac_filter=macvlan, mac_filter_ipvlan=ipvlan)
    assert "`promiscuity 1`" in text
    for other in (
        macvlan | {"macvlan": worked},
        macvlan | {"macvlan_promiscuous": {"code": 1}},
        macvlan | {"promiscuity": {"node1": 0}},
    ):
        with pytest.raises(page.Contradiction):
            rendered(mac_filter=other, mac_filter_ipvlan=ipvlan)


def test_the_routes_are_said_to_help_only_where_they_did() -> None:
    works = {"result": "works", "share": 1.0}
    l3 = {"kind": "ipvlan", "mode": "l3", "ipam": "host-local", "note": "", "seconds": 1, "across": works}
    l3 |= {"without_routes": {"code": 4, "failure": "no answer from the pods of node2"}}
    l3s = {**l3, "mode": "l3s", "command": "--mode l3s --range R --slice a=b,via=c"}
    assert "torchnet manifests backend-network --mode l3s \\\n  --range R \\\n" in rendered(l3, l3s)
    for changed in ({"across": {"result": "refused"}}, {"without_routes": {"code": 1, "failure": ""}}):
        with pytest.raises(page.Contradiction):
            rendered({**l3, **changed}, l3s)


def test_all_lines_of_a_cause_are_shown() -> None:
    failure = "preflight: no answer from the pods of node2\n  fix: run:\n    ip route\nand 1 more cause\n  x\njob1-0: y"
    assert page.causes(failure) == ["no answer from the pods of node2", "  fix: run:", "    ip route"]


def test_what_lint_refuses_on_several_nodes_is_counted() -> None:
    tried = {
        "ADD": "",
        "DEL": "",
        "CHECK": "",
        "result": {"interfaces": [1], "ips": [{"address": "10.9.0.2/24"}]},
    }
    net1 = {"linkinfo": {"info_kind": "veth"}, "mtu": 1500}
    net1 |= {"addr_info": [{"local": "10.9.0.2", "prefixlen": 24, "scope": "global"}]}
    host_local = {"type": "host-local", "subnet": "10.9.0.0/24"}
    ipams: list[dict[str, Any]] = [host_local, {"type": "whereabouts", "range": "10.9.0.0/24"}]
    ones: list[dict[str, Any]] = [
        {
            **tried,
            "kind": "passed",
            "usable": True,
            "net1": net1,
            "config": {"cniVersion": "1.0.0", "type": "bridge", "bridge": "br0", "ipam": ipam},
        }
        for ipam in ipams
    ]
    assert "there, 1 of the 2 have a fault" in " ".join(rendered(samples={"samples": ones}).split())
    ones[1]["config"]["ipam"]["range"] = "10.9.0.0/33"
    with pytest.raises(page.Contradiction):
        rendered(samples={"samples": ones})


def test_the_kernels_version_and_marked_figures_may_differ_and_nothing_else() -> None:
    text = rendered(ROW) + f"\n{page.FIGURES}\n```text\n22.29 MB\n```\nmore\n"
    assert page.same(text, text.replace("Linux 6.1", "Linux 6.12").replace("22.29 MB", "22.30 MB\nin 4 s"))
    assert not page.same(text, text.replace("more", "less"))
    assert not page.same(text, text.replace("CNI plugins v1", "CNI plugins v2"))
    assert not page.same(text, text.replace("failed", "works", 1))
