"""torchnet verify on the real cluster: what is good, and what it finds when something is missing."""

from __future__ import annotations

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher


def verify(launcher: Launcher, *words: str) -> tuple[int, str]:
    image = launcher.cluster.worker_image
    ran = launcher.run("verify", "-n", launcher.namespace, "--image", image, *words)
    assert launcher.left() == []
    return ran.code, ran.out + ran.err


def test_a_cable_that_is_cut_is_found(launcher: Launcher) -> None:
    launcher.cluster.cut_cable("node2")
    try:
        code, said = verify(launcher)
    finally:
        launcher.cluster.mend_cable("node2")
    assert code == 4, said
    (failed,) = (line for line in said.splitlines() if line.startswith("FAIL"))
    assert "link" in failed, said
    assert "on node2: net1 has no carrier" in failed, said


@concurrent
def test_a_network_that_works(launcher: Launcher) -> None:
    code, said = verify(launcher)
    assert code == 0, said
    for text in (
        "Multus: Running on 2 of 2 nodes",
        "Whereabouts: Running on 2 of 2 nodes",
        "macvlan on ens5",
    ):
        assert text in said
    assert "9000 bytes in both directions" in said
    assert "FAIL" not in said


@concurrent
def test_an_attachment_that_is_missing_and_one_without_a_version(launcher: Launcher) -> None:
    code, said = verify(launcher, "--network", "nosuch")
    assert code == 4, said
    assert "FAIL  attachment" in said
    patch = '{"spec": {"config": "{\\"type\\": \\"macvlan\\", \\"master\\": \\"ens5\\"}"}}'
    kubectl, name = launcher.cluster.kubectl, "net-attach-def/backend-network"
    kubectl("patch", name, "-n", launcher.namespace, "--type=merge", "-p", patch)
    code, said = verify(launcher)
    assert code == 4, said
    assert "no network-status" in said
