"""The own network-status in a volume: used once it is there, and waited for only if the kernel leaves a doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchnet.agent.status_dir import STATUS_SECONDS, StatusDirSource
from torchnet.errors import NetworkError, NotYetError, StatusError, UsageError
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import StatusEntry, render

WANTED = (NetworkAttachment("ml", "net", "net1"),)
KERNEL = (StatusEntry("ml/net", "net1"),)
TOLD = render(
    (StatusEntry("cilium", "eth0", ("10.0.0.9",), default=True), StatusEntry("ml/net", "net1", ("fd00::2",)))
)


class Volume:
    """A pod's volume and its clock."""

    def __init__(self, folder: Path, status: str = "", networks: str = "ml/net@net1") -> None:
        self.folder, self.now = folder, 100.0
        (folder / "network-status").write_text(status)
        (folder / "networks").write_text(networks)

    def source(self, seen: tuple[StatusEntry, ...] | None = None) -> StatusDirSource:
        return StatusDirSource(
            str(self.folder), ("train-0-x", "ml"), WANTED, lambda: seen, clock=lambda: self.now
        )


def test_what_the_kernel_determines_is_not_waited_for(tmp_path: Path) -> None:
    source = Volume(tmp_path).source(KERNEL)
    assert source.attachments() == KERNEL
    (tmp_path / "network-status").write_text(TOLD)
    assert [entry.origin for entry in source.attachments()] == ["network-status"]


def test_where_the_kernel_leaves_a_doubt_the_annotation_decides(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    source = volume.source()
    with pytest.raises(NotYetError):
        source.attachments()
    (tmp_path / "network-status").write_text(TOLD)
    (entry,) = source.attachments()
    assert (entry.interface, entry.ips, entry.origin) == ("net1", ("fd00::2",), "network-status")


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ("", "requests no second network"),
        ("ml/net@net1", "requests ml/net@net1 but has no annotation k8s.v1.cni.cncf.io/network-status"),
    ],
)
def test_an_annotation_that_never_comes(tmp_path: Path, networks: str, said: str) -> None:
    volume = Volume(tmp_path, networks=networks)
    source = volume.source()
    with pytest.raises(NotYetError):
        source.attachments()
    volume.now += STATUS_SECONDS + 1
    with pytest.raises(StatusError, match=said) as caught:
        source.attachments()
    assert "train-0-x" in caught.value.text


def test_a_volume_that_is_not_there(tmp_path: Path) -> None:
    source = StatusDirSource(str(tmp_path / "none"), ("x", "ml"), WANTED, lambda: None)
    with pytest.raises(UsageError, match="downwardAPI"):
        source.attachments()


def test_an_annotation_that_is_malformed_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="not JSON|malformed|must be"):
        Volume(tmp_path, status="{").source().attachments()


def test_the_training_container_compares_what_has_come_by_then(tmp_path: Path) -> None:
    entry = StatusEntry("ml/net", "net1", ("fd00::2",), origin="the preparation")
    source = Volume(tmp_path).source((entry,))
    assert source.attachments() == (entry,)
    (tmp_path / "network-status").write_text(TOLD)
    assert [(entry.origin, entry.ips) for entry in source.attachments()] == [("network-status", ("fd00::2",))]
    other = render((StatusEntry("ml/other", "net1", ("fd00::2",)),))
    (tmp_path / "network-status").write_text(other)
    with pytest.raises(NetworkError, match="no entry for ml/net@net1"):
        source.attachments()
