"""The limit of open files, in processes of its own: a hard limit that is lowered stays low."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """\
import resource, sys
from torchnet.rlimits import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
print(raise_open_files(int(sys.argv[1])), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("wanted", "limits"), [("100", "200 200 300"), ("250", "250 250 300"), ("500", "300 300 300")]
)
def test_the_limit_is_raised_as_far_as_the_hard_limit_allows(wanted: str, limits: str) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CODE, wanted], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == limits
