"""All checks in one command, the same before a commit and in CI: format, lint, types, layers.

uv run tools/check.py           # all of them; says which failed
uv run tools/check.py --fix     # formats and repairs first what can be repaired
uv run tools/check.py layers    # one of them
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "format": ["ruff", "format", "--check", "--quiet", "--diff"],
    "lint": ["ruff", "check", "--quiet"],
    "types": ["mypy", "--no-error-summary"],
    # Its cache keeps an import of a module that was missing as one of the package above it.
    "layers": ["lint-imports", "--no-logo", "--no-cache"],
}
FIXES = [["ruff", "check", "--quiet", "--fix-only"], ["ruff", "format", "--quiet"]]


def main(arguments: list[str]) -> int:
    unknown = [word for word in arguments if word not in (*CHECKS, "--fix")]
    if unknown:
        print(
            f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)} and --fix", file=sys.stderr
        )
        return 2
    for command in FIXES if "--fix" in arguments else []:
        subprocess.run(command, cwd=ROOT, check=False)
    failed = []
    for name in [word for word in arguments if word in CHECKS] or CHECKS:
        # A check that passes says nothing but its name.
        done = subprocess.run(
            CHECKS[name], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(f"{name}: {'ok' if done.returncode == 0 else 'failed'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
