"""The agent's command line: `torchnet env` in a pod and on a machine of one's own, and what cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archive import make
from tests.conftest import ROOT, Result
from tests.containers import NET1, Pods, ended, served
from tests.jobs import script
from tests.namespaces import isolated


@isolated
def test_the_environment_alone(tmp_path: Path) -> None:
    pods = Pods(tmp_path)
    with served(pods) as server:
        words = ("--nproc-per-node", "2", "--local-rank", "1")
        ((code, out, err),) = ended([pods.start(1, *words, command="env")])
        assert code == 0, err
        lines = out.splitlines()
        for line in ("RANK='3'", "WORLD_SIZE='4'", f"MASTER_ADDR='{NET1[0]}'", "GLOO_SOCKET_IFNAME='net1'"):
            assert f"export {line}" in lines
        assert all(line.startswith("export ") for line in lines)
        assert "torchnet env" in err
        server.state.pods.clear()
        ((code, out, err),) = ended([pods.start(1, "--start-timeout", "1", command="env")])
        assert (code, out) == (3, "false\n")


def test_the_environment_of_a_machine_of_ones_own(torchnet: Callable[..., Result]) -> None:
    words = ("--address-source", "host:lo", "--nnodes", "3", "--node-rank", "2", "--rank0", "10.0.0.1")
    done = torchnet("env", *words, "--run-id", "it's $(x)")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert "export MASTER_ADDR='10.0.0.1'" in lines
    assert "export TORCHELASTIC_RUN_ID='it'\\''s $(x)'" in lines
    assert "export RANK='2'" in lines
    failed = torchnet("env", "--address-source", "host:none7")
    assert (failed.code, failed.stdout) == (4, "false\n")
    assert torchnet("env", "--explain").code == 0


WRONG = {
    ("--local-rank", "9"): "--local-rank 9 is not within 0 … 0",
    ("--node-rank", "3"): "--node-rank 3 is not within 0 … 0",
    ("--bogus",): "unrecognized arguments: --bogus",
    ("--nnodes", "2", "--node-rank", "1"): "--rank0 ADDRESS",
    ("--nnodes", "1", "train.py"): "train.py",
    ("train.py",): "train.py",
    ("TORCHNET_NNODES=4 ",): "TORCHNET_NNODES='4 '",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_shell_notices_that_there_is_no_environment(
    torchnet: Callable[..., Result], words: tuple[str, ...]
) -> None:
    why = WRONG[words]
    env = {"TORCHNET_ADDRESS_SOURCE": "host:lo"}
    if "=" in words[0]:
        env |= dict([words[0].split("=")])
        words = ()
    done = torchnet("env", *words, env=env)
    assert (done.code, done.stdout) == (2, "false\n")
    assert why in done.stderr


def test_help_is_no_failure_and_a_machine_that_is_no_worker_is_one(
    torchnet: Callable[..., Result], tmp_path: Path
) -> None:
    done = torchnet("env", "--help")
    assert done.code == 0
    assert "false\n" not in done.stdout
    archive = make(tmp_path / "torchnet.zip")
    done_by_zip = subprocess.run(
        [sys.executable, "-S", archive, "env", "--help"], capture_output=True, text=True, check=True
    )
    assert done_by_zip.stdout.startswith("usage: torchnet env")
    assert "false\n" not in done_by_zip.stdout
    none = torchnet("env")
    assert (none.code, none.stdout) == (2, "false\n")


def test_values_are_printed_as_they_are_whatever_the_encoding_of_the_output() -> None:
    words = ("env", "--address-source", "host:lo", "--run-id", "caf\u00e9")
    done = subprocess.run(
        [sys.executable, "-m", "torchnet", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert "export TORCHELASTIC_RUN_ID='caf\u00e9'\n".encode() in done.stdout


@isolated
def test_an_output_that_lacks_a_character_shows_an_escape(tmp_path: Path) -> None:
    archive = make(tmp_path / "torchnet.zip")
    path = script(tmp_path, "import sys; sys.stdout.buffer.write('caf\u00e9\\n'.encode())")
    done = subprocess.run(
        [sys.executable, "-S", archive, "agent", "--address-source", "host:lo", path],
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[0] caf\\xe9\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--name", "its name"), '--name "its name"'),
        (("--name", "-7"), '--name "-7"'),
        (("--name", "x" * 254), '--name "xxx'),
        (("--run-id", "a\n::1 b"), '--run-id (TORCHNET_RUN_ID) "a\\x0a::1 b"'),
        (("--run-id", "r" * 252, "--phase", "prepare"), '--name "rrr'),
    ],
)
def test_a_name_that_no_table_takes_is_told_by_its_flag(
    torchnet: Callable[..., Result], words: tuple[str, ...], why: str
) -> None:
    done = torchnet("agent", *words, "x.py")
    assert done.code == 2
    assert why in done.stderr
    assert "253" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--phase", "work", "x.py"), "--state DIR"),
        (("--phase", "work", "--state", "/none", "x.py"), "/none/state.json: No such file"),
        (("--phase", "all"), "torchnet agent [FLAGS] SCRIPT"),
        (("--phase", "prepare", "--state", "/tmp", "--code", "/none.zip"), "/none.zip: No such file"),
        (("--address-source", "static:net1", "x.py"), 'address source "static:net1"'),
        (("--workdir", "/none", "x.py"), "--workdir /none: No such file"),
    ],
)
def test_what_cannot_be_is_told_on_both_ways(
    torchnet: Callable[..., Result], tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    log = tmp_path / "log"
    done = torchnet("agent", "--termination-log", str(log), *words)
    assert done.code == 2
    assert why in done.stderr
    told = json.loads(log.read_text())
    assert (told["code"], told["failure"]["kind"]) == (2, "usage")
    assert why in told["failure"]["text"]
