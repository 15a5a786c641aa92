"""The same command line under torchrun and torchnet: exit code, output, files, signals. Made fresh for each row."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, TORCHNET, Job, until
from tests.torchrun_rows import DIFFERS, FAILURE, PORT, REFUSED, ROWS, SAME, SCRIPTS, SUCCESS, Row, table
from tests.torchrun_server import TorchrunServer

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

LAUNCHERS = {"torchrun": (sys.executable, "-m", "torch.distributed.run"), "torchnet": (*TORCHNET, "launch")}
PREFIX = {"torchrun": re.compile(r"^\[default(\d+)\]:"), "torchnet": re.compile(r"^\[rank (\d+)\] *")}
TEMPLATES = ("--log-line-prefix-template", "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE")
# torchnet finds 8 processors, unless the line counts them: what it derives from them in silence differs from torchrun.
PROCESSORS = """
    import os
    os.sched_getaffinity = lambda pid: set(range(8))
"""
OTHERS = (
    "TORCHNET_",
    "SLURM_",
    "PET_",
    "NCCL_",
    "GLOO_",
    "TORCH_",
    "TORCHELASTIC_",
    "OMP_",
    "CUDA_VISIBLE",
    "PYTHON_EXEC",
)
SITE = "processors/sitecustomize.py"
SECONDS = 120
WAITS_SECONDS = 3  # for a line that only waits to have done something


@pytest.fixture(scope="module")
def server() -> Iterator[TorchrunServer]:
    with TorchrunServer() as one:
        yield one


@pytest.fixture(autouse=True)
def _without_other_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the tests' own environment says to launchers."""
    for name in [name for name in os.environ if name.startswith(OTHERS)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.shown)
def test_a_line_does_the_same_is_refused_by_both_or_says_what_differs(
    row: Row, tmp_path: Path, server: TorchrunServer
) -> None:
    with ThreadPoolExecutor(len(LAUNCHERS)) as both:
        asked = {name: both.submit(outcome, row, name, tmp_path / name, server) for name in LAUNCHERS}
    found = {name: one.result() for name, one in asked.items()}
    said = {name: one.pop("said") for name, one in found.items()}
    ours, theirs = found["torchnet"], found["torchrun"]
    assert (theirs["end"], theirs["usage"] and row.verdict != REFUSED) == (row.end, False), said["torchrun"]
    assert not re.search("^Traceback", said["torchnet"], re.MULTILINE)
    if row.verdict == SAME:
        assert ours == theirs, said["torchnet"]
        return
    assert re.search(row.says, said["torchnet"]), said["torchnet"]
    if row.verdict == REFUSED:
        assert (ours["usage"], ours["out"], ours["files"]) == (True, [], [])
        assert re.match("torchnet: |Usage: torchnet launch ", said["torchnet"])
    else:
        assert ours != theirs, "it is the same"


def test_the_documentation_shows_the_rows() -> None:
    shown = (ROOT / "docs/torchrun.md").read_text()
    assert f"```text\n{table()}```\n" in shown, table()
    same, refused, differ = (sum(row.verdict == one for row in ROWS) for one in (SAME, REFUSED, DIFFERS))
    counts = f"{len(ROWS)} .*, {same} do the same, {refused} are refused by both, and {differ}\\s"
    assert re.search(counts, (ROOT / "README.md").read_text().replace("\n", " "))


def outcome(row: Row, name: str, folder: Path, server: TorchrunServer) -> dict[str, Any]:
    """What the line did, without what the launchers may do differently: names of runs, order, their own words."""
    for path, text in SCRIPTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    (folder / "stdin").write_text(row.stdin)
    words = shlex.split(row.words.replace(PORT, str(free_port())))
    with ExitStack() as stack:
        jobs = []
        for number in range(row.starts):
            time.sleep(number)
            stdin = stack.enter_context(open(folder / "stdin", "rb"))
            jobs.append(stack.enter_context(start(row, name, words, folder, server, stdin)))
        took = 0.0
        if row.number:
            until(lambda: len([*folder.glob("ready-*")]) == 2, "both ranks are ready", SECONDS)
            time.sleep(0.3)
            took = -time.monotonic()
            jobs[0].send(row.number)
        if row.waits and name == "torchrun":
            time.sleep(WAITS_SECONDS)
            assert jobs[0].process.poll() is None
            jobs[0].process.kill()
        waited = False
        if "leave.py" in words:
            known = "has ended, or says that it waits"
            until(
                lambda: jobs[0].process.poll() is not None or "left behind" in jobs[0].text("stderr"),
                known,
                SECONDS,
            )
            waited = jobs[0].process.poll() is None
            (folder / "go").touch()
        for job in jobs:
            job.process.wait(SECONDS)
        took += time.monotonic() if row.number else 0.0
        for reader in (reader for job in jobs for reader in job._readers):
            reader.join(SECONDS)
        codes = [job.process.returncode for job in jobs]
        out, err = ("".join(job.text(stream) for job in jobs) for stream in ("stdout", "stderr"))
    if "leave.py" in words:
        until((folder / "uploaded").exists, "what the rank left behind goes on", 20)
    own = {*SCRIPTS, "stdin", SITE}
    logs = {path: text for path, text in files(folder, own).items() if path.startswith(f"{row.logs}/")}
    return {
        "end": SUCCESS if not any(codes) or (row.waits and codes == [-9]) else FAILURE,
        "usage": codes[0] == 2,
        "slow": took > 20,
        "waited": waited,
        "out": sorted(shown(line, row, name) for line in out.splitlines()),
        "files": [path for path in files(folder, own) if not path.startswith("logs/")],
        "logs": normal(logs, folder) if row.logs else {},
        "reply": reply(folder / "reply.json"),
        "err": sorted(
            line for one in err.splitlines() if re.search(r"\berr \d$", line := shown(one, row, name))
        ),
        "said": err,
    }


def start(row: Row, name: str, words: list[str], folder: Path, server: TorchrunServer, stdin: Any) -> Job:
    options: dict[str, Any] = {"cwd": folder, "stdin": stdin}
    if name == "torchrun" and not row.command:
        return Job(*words, command=(), popen=server.popen, env={**os.environ, **row.env}, **options)
    env = dict(row.env)
    if name == "torchnet" and not {"cpu", "auto"} & {*words}:
        (folder / SITE).parent.mkdir(exist_ok=True)
        (folder / SITE).write_text(textwrap.dedent(PROCESSORS))
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str((folder / SITE).parent)])
    return Job(*words, command=LAUNCHERS[name], env=env, **options)


def shown(line: str, row: Row, name: str) -> str:
    """A line of output without its prefix, or with the same one, where torchrun has one."""
    if any(one in row.shown for one in TEMPLATES):
        return line
    return PREFIX[name].sub(r"\1: " if re.search("(?:-t|--tee)[ =]", row.words) else "", line)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


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
