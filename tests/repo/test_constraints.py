"""tools/constraints.py: what may be cut from a marker, and where the pins stand."""

from __future__ import annotations

import pytest

from tools.constraints import BLOCK, PYPROJECT, shorter

NEW = "python_full_version >= '3.11'"
LINUX = "sys_platform == 'linux'"
MACHINES = f"((platform_machine == 'x86_64' and {LINUX}) or platform_machine == 'arm64')"


@pytest.mark.parametrize(
    ("marker", "left"),
    [
        (LINUX, ""),
        ("platform_python_implementation != 'PyPy'", ""),
        (NEW, NEW),
        (f"{NEW} and {LINUX}", NEW),
        (f"{NEW} and {MACHINES}", NEW),
        (f"{NEW} and python_full_version < '3.15' and {LINUX}", f"{NEW} and python_full_version < '3.15'"),
    ],
)
def test_what_a_marker_says_of_systems_is_cut(marker: str, left: str) -> None:
    assert shorter(f"torch==2.15.0 ; {marker}") == f"torch==2.15.0 ; {left}".removesuffix(" ; ")


@pytest.mark.parametrize(
    "marker",
    [f"({NEW} and {LINUX}) or {LINUX}", f"{NEW} or {LINUX} and {NEW}", f"{NEW} and {LINUX} or {LINUX}"],
)
def test_a_python_under_an_or_stays(marker: str) -> None:
    assert shorter(f"torch==2.15.0 ; {marker}") == f"torch==2.15.0 ; {marker}"


def test_the_pins_have_one_place() -> None:
    assert len(BLOCK.findall(PYPROJECT.read_text())) == 1
