"""A full disk and a read-only one, for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import needs

# In namespaces of its own: a file system of 16 KiB.
IN_NAMESPACES = """
mount -t tmpfs -o size=16k tmpfs "$1" && echo '{"old": true}' > "$1/receipt.json" && %s
"$2" -c '
import json, sys
from torchnet.console.files import problem, write_json
print(problem(sys.argv[1]), file=sys.stderr)
reason = write_json(sys.argv[1], {"text": "x" * 100_000})
sys.exit(3 if reason else 0)
' "$1/receipt.json"
code=$?
cat "$1/receipt.json" >&2; ls -A "$1" >&2
exit $code
"""


def in_namespaces(step: str, folder: Path) -> subprocess.CompletedProcess[str]:
    needs.networks()
    command = ["unshare", "-Urm", "sh", "-c", IN_NAMESPACES % step, "sh", str(folder), sys.executable]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    done = in_namespaces("true", tmp_path)
    assert done.returncode == 3, done.stderr
    said, error, old, names = done.stderr.splitlines()
    assert said == "None"
    assert "No space left on device" in error
    assert old == '{"old": true}'
    assert names == "receipt.json"
    assert json.loads(done.stdout) == {"text": "x" * 100_000}


def test_a_read_only_disk_keeps_the_old_file(tmp_path: Path) -> None:
    done = in_namespaces('mount -o remount,bind,ro "$1"', tmp_path)
    assert done.returncode == 3, done.stderr
    said, error, old, names = done.stderr.splitlines()
    assert said == f"{tmp_path} is not writable"
    assert "Read-only file system" in error
    assert old == '{"old": true}'
    assert names == "receipt.json"
    assert json.loads(done.stdout) == {"text": "x" * 100_000}
