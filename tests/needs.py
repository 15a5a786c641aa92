"""What the machine has of what tests need: where it is missing they are skipped, with the reason.

CI has everything and allows no skip (tests/conftest.py): a torchnet that refuses wrongly hides nothing there.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path

import pytest

from torchnet.errors import RefusedError

REFUSED = "this machine does not allow the local networks: "
# The package of each program that Debian's smallest images lack.
PACKAGES = {"ip": "iproute2", "busybox": "busybox-static"}


def networks() -> None:
    """Skip the test where this machine lets this user make no namespaces or links."""
    __tracebackhide__ = True  # pytest names the place that asked
    if reason := _refusal():
        pytest.skip(reason)


def program(name: str) -> str:
    """The program's path; where there is none the test is skipped."""
    __tracebackhide__ = True
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt install {PACKAGES.get(name, name)})")
    return path


def uv() -> str:
    """uv's path: the one that runs the tests, that of the README's commands, or one on the PATH."""
    __tracebackhide__ = True
    own = Path(__file__).resolve().parent.parent / ".uv" / "bin"
    path = os.environ.get("UV") or shutil.which("uv", path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        pytest.skip("uv is not installed (python3 -m pip install --target .uv uv)")
    return path


def ended(stderr: str) -> None:
    """Skip the test whose torchnet ended with the refusal that the machine would give any other as well."""
    __tracebackhide__ = True
    if re.search(f"^torchnet: {REFUSED}", stderr, re.MULTILINE):
        networks()


@functools.cache
def _refusal() -> str:
    from tests import forked_nodes  # Linux alone
    from torchnet.local import topology

    try:
        running = forked_nodes.start([topology.node(0, 1)], lambda _rank: 0, topology.SandboxShape())
    except RefusedError as error:
        return error.text
    try:
        for _ in running.messages():
            pass
    finally:
        running.kill()
    return ""
