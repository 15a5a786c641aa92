"""A job on Kubernetes as people ask for it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from tests.unit import asked as anywhere
from torchnet.config.resolution import Resolved
from torchnet.config.validation_errors import SpecError

BASE: dict[str, object] = {
    "on": "kubernetes",
    "script": "train.py",
    "kubernetes.image": "registry.example.com/pytorch:2.15",
    "network.networks": ["ml/backend-network"],
}


def asked(cwd: Path, flags: dict[str, object], environ: dict[str, str] | None = None) -> Resolved:
    return anywhere.asked(cwd, {**BASE, **flags}, environ)


def wrong(cwd: Path, flags: dict[str, object]) -> SpecError:
    error = anywhere.wrong(cwd, {**BASE, **flags})
    assert error.exit_code == 2
    assert str(error).replace("\n", "").isprintable()
    return error
