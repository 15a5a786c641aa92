"""The same command line under torchrun and torchnet: exit code, output, files, signals. Made fresh for each row."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, TORCHNET, Job, run, until
from tests.torchrun_rows import DIFFERS, REFUSED, ROWS, SAME, SCRIPTS, Row, table

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

LAUNCHERS = {"torchrun": (sys.executable, "-m", "torch.distributed.run"), "torchnet": (*TORCHNET, "launch")}
PREFIX = {"torchrun": re.compile(r"^\[default\d+\]:"), "torchnet": re.compile(r"^\[rank \d+\] *")}
SECONDS = 120


@pytest.mark.parametrize("row", [row for row in ROWS if row.verdict != DIFFERS], ids=lambda row: row.shown)
def test_a_line_does_the_same(row: Row, tmp_path: Path) -> None:
    found = {name: outcome(row, name, tmp_path / name) for name in LAUNCHERS}
    if row.verdict == REFUSED:
        assert [one["code"] for one in found.values()] == ["failed", "failed"]
        assert found["torchnet"]["out"] == []
    else:
        assert found["torchrun"]["usage"] is False, "the row is wrong: torchrun itself refuses it"
        assert found["torchnet"] == found["torchrun"]


@pytest.mark.parametrize("row", [row for row in ROWS if row.verdict == DIFFERS], ids=lambda row: row.shown)
def test_a_line_that_does_something_else_says_so_first(row: Row, tmp_path: Path) -> None:
    for path in ("echo.py",):
        (tmp_path / path).write_text(textwrap.dedent(SCRIPTS[path]))
    done = run(*shlex.split(row.words), cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert re.match("torchnet: .*--nnodes.* on this machine", done.stderr)


def test_the_documentation_shows_the_rows() -> None:
    shown = (ROOT / "docs/torchrun.md").read_text()
    assert f"```text\n{table()}```\n" in shown, table()
    same, refused, differ = (sum(row.verdict == one for row in ROWS) for one in (SAME, REFUSED, DIFFERS))
    counts = f"{len(ROWS)} .*, {same} do the same, {refused} are refused by both, and {differ}\\s"
    assert re.search(counts, (ROOT / "README.md").read_text().replace("\n", " "))


def outcome(row: Row, name: str, folder: Path) -> dict[str, Any]:
    """What the line did, without what the launchers may do differently: names of runs, order, their own words."""
    for path, text in SCRIPTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    (folder / "stdin").write_text(row.stdin)
    words = shlex.split(row.words)
    with (
        open(folder / "stdin", "rb") as stdin,
        Job(*words, command=LAUNCHERS[name], cwd=folder, env=row.env, stdin=stdin) as job,
    ):
        took = 0.0
        if row.number:
            until(lambda: len([*folder.glob("ready-*")]) == 2, "both ranks are ready", SECONDS)
            time.sleep(0.3)
            took = -time.monotonic()
            job.send(row.number)
        job.process.wait(SECONDS)
        took += time.monotonic() if row.number else 0.0
        for reader in job._readers:
            reader.join(SECONDS)
        code, out, err = job.process.returncode, job.text("stdout"), job.text("stderr")
    if "leave.py" in words:
        until((folder / "uploaded").exists, "what the rank left behind goes on", 20)
    own = {*SCRIPTS, "stdin"}
    logs = {path: text for path, text in files(folder, own).items() if path.startswith(f"{row.logs}/")}
    template = "--log-line-prefix-template" in words
    return {
        "code": "0" if code == 0 else "failed",
        "usage": code == 2 and name == "torchrun",
        "slow": took > 20,
        "out": sorted(line if template else PREFIX[name].sub("", line) for line in out.splitlines()),
        "files": [path for path in files(folder, own) if not path.startswith("logs/")],
        "logs": normal(logs, folder) if row.logs else {},
        "reply": reply(folder / "reply.json"),
        "err": sorted(re.findall(r"err \d$", err, re.MULTILINE)),
    }


def files(folder: Path, own: set[str]) -> dict[str, bytes]:
    """The files below a folder, except the row's own."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        path: found[path].read_bytes()
        for path in sorted(found)
        if path not in own and "__pycache__" not in path and not path.endswith(".pyc")
    }


def normal(logs: dict[str, bytes], folder: Path) -> dict[str, list[str]]:
    """Without the run's folder and the level of the node, which torchrun does not have; times in error.json differ."""
    whole = str(folder).encode()
    found = {}
    for path, text in logs.items():
        place = re.sub(r"^logs/[^/]+/(node-0/)?", "", path)
        found[place] = (
            ["an error"]
            if place.endswith(".json")
            else sorted(text.replace(whole, b"").decode().splitlines())
        )
    return found


def reply(path: Path) -> object:
    if not path.exists():
        return None
    message = json.loads(path.read_text())["message"]
    return message["message"], message["errorCode"]
