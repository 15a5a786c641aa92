"""The page that the lab writes: what may differ from run to run, and that nothing is claimed which was not tried."""

from __future__ import annotations

from typing import Any

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


def test_versions_and_marked_figures_may_differ_and_nothing_else() -> None:
    text = rendered(ROW) + f"\n{page.FIGURES}\n```text\n22.29 MB\n```\nmore\n"
    assert page.same(text, text.replace("Linux 6.1", "Linux 6.12").replace("22.29 MB", "22.30 MB\nin 4 s"))
    assert not page.same(text, text.replace("more", "less"))
    assert not page.same(text, text.replace("failed", "works", 1))
