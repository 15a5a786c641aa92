"""The agent as it travels: its own modules and those of pyroute2 that it loads, in one zip."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("__init__.py", "names.py", "errors.py", "agent", "kernel", "network", "training")
MAIN = "import sys\nfrom torchnet.agent.program import main\nsys.exit(main(sys.argv[1:]))\n"
# What the agent's command loads of pyroute2, seen from outside.
LOADED = """
import sys, torchnet.agent.command
print(*sorted(m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "pyroute2"), sep="\\n")
"""


def make(path: Path) -> Path:
    """Write it to ``path``."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("__main__.py", MAIN)
        for part in PARTS:
            place = ROOT / "torchnet" / part
            for module in [place] if place.is_file() else sorted(place.rglob("*.py")):
                file.write(module, module.relative_to(ROOT))
        for name in done.stdout.split():
            module = Path(name)
            file.write(module, Path("pyroute2", *module.parts[module.parts.index("pyroute2") + 1 :]))
    return path
