"""Where the lab cannot run, its tests are skipped, and say what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab import machine
from tests.lab import versions as v


def _obstacles(monkeypatch: pytest.MonkeyPatch, kernel: Path) -> list[str]:
    monkeypatch.setattr(v, "KERNEL", str(kernel))
    monkeypatch.setattr(v, "DEBIAN_PROGRAMS", {str(kernel): "user-mode-linux"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return machine.obstacles()


def test_a_missing_kernel_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _obstacles(monkeypatch, tmp_path / "linux.uml")
    assert "missing packages: apt-get install --no-install-recommends user-mode-linux" in found


def test_a_kernel_that_does_not_boot_is_named_with_what_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = tmp_path / "linux.uml"
    kernel.write_text("#!/bin/sh\necho 'ptrace: Operation not permitted' >&2; exit 1\n")
    kernel.chmod(0o755)
    found = _obstacles(monkeypatch, kernel)
    assert f"{kernel} does not run: ptrace: Operation not permitted" in found


def test_only_root_can_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (found,) = machine.obstacles()
    assert "only root" in found
