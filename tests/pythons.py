"""The Pythons of this machine, and the tests that run on the oldest and the newest of them.

uv run -m tests.pythons     unit tests and a launch on both, without PyTorch: a minute each

PyTorch and its CUDA packages are another download of gigabytes for each Python, so the tests that need them or
Matplotlib run on one Python alone: tests/unit/bench, tests/unit/training and nearly all of tests/local. So do those
that are marked `large`.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests import needs

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 14)
PATHS = (
    *(
        f"tests/unit/{part}"
        for part in ("agent", "cli", "config", "console", "linux", "local", "network", "receipt")
    ),
    "tests/local/test_launch_forms.py",  # a launch
)


@cache
def pythons() -> dict[tuple[int, int], str]:
    """Version -> interpreter: this one, those on the PATH, and those that pyenv and uv keep."""
    found: dict[tuple[int, int], str] = {}
    candidates = [sys.executable, "/usr/bin/python3"]
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        candidates += filter(None, [shutil.which(name), f"/usr/bin/{name}"])
        for folder in ("~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin"):
            candidates += sorted(glob.glob(os.path.expanduser(f"{folder}/{name}")))
    for path in candidates:
        version = _version(path)
        if version and OLDEST <= version <= NEWEST:
            found.setdefault(version, path)
    return dict(sorted(found.items()))


def _version(path: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        major, minor = done.stdout.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # pyenv's placeholders for versions that are not chosen
    return int(major), int(minor)


def main() -> int:
    found = [*pythons().items()]
    code = 0
    for version, path in dict([found[0], found[-1]]).items():
        name = ".".join(map(str, version))
        if version == sys.version_info[:2]:
            print(
                f"Python {name}: the one of all tests, and the {'oldest' if version == found[0][0] else 'newest'} here"
            )
            continue
        print(f"Python {name}: {path}", flush=True)
        words = [
            needs.uv(),
            "run",
            "-q",
            "--isolated",
            "--python",
            path,
            "--no-default-groups",
            "--group",
            "tests",
        ]
        tests = [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--lanes=1",
            "-m",
            "not quiet and not large",
            *PATHS,
        ]
        code |= subprocess.run(
            [*words, "python", *tests], cwd=ROOT, check=False, start_new_session=True
        ).returncode
    return code


if __name__ == "__main__":
    sys.exit(main())
