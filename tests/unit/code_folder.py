"""Folders of scripts, and what of them travels."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.rendered import job
from torchnet.k8s.objects import code_bundle as code_module
from torchnet.k8s.objects.code_bundle import CodeBundle, gather


def small_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an automatic fixture: the agent's own zip has tests of its own, and so have scripts that travel alone."""
    monkeypatch.setattr(code_module, "agent_zip", lambda: b"agent" * 1000)
    monkeypatch.setattr(code_module, "is_alone", lambda _: False)


def write(root: Path, *files: str, text: str = "x") -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(code: CodeBundle) -> list[str]:
    assert code.code_zip is not None
    return zipfile.ZipFile(io.BytesIO(code.code_zip)).namelist()


def read(root: Path, script: str = "train.py", **more: Any) -> CodeBundle:
    return gather(job(job_script=script, **more), root, os.environ)
