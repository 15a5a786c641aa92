"""A job as people ask for it, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torchnet.config.resolution import Resolved, resolve
from torchnet.config.validation_errors import SpecError


def asked(
    cwd: Path, flags: dict[str, object], environ: dict[str, str] | None = None, config: str | None = None
) -> Resolved:
    return resolve({"script": "train.py", **flags}, environ or {}, cwd, config)


def wrong(cwd: Path, flags: dict[str, object], **more: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        asked(cwd, flags, **more)
    return caught.value
