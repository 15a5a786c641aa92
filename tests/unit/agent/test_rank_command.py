"""What each process executes, and who reads an empty standard input."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from tests.unit.agents import spec
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.rank_command import StandardInputs, argv
from torchnet.agent.spec import AgentSpec


def commanded(*command: str, **fields: Any) -> AgentSpec:
    return AgentSpec("run", 1, 2, command, python="python3", **fields)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (commanded("a_${local_rank}.py", "$local_rank", "${x}"), ["python3", "-u", "a_1.py", "1", "${x}"]),
        (
            commanded("x.py", "cost$$5", "$", "$$$$", "a$(b)"),
            ["python3", "-u", "x.py", "cost$5", "$", "$$", "a$(b)"],
        ),
        (commanded("-x.py"), ["python3", "-u", "./-x.py"]),
        (commanded("-", "y"), ["python3", "-u", "-", "y"]),
        (commanded("m", "${local_rank}", entry="module"), ["python3", "-u", "-m", "m", "1"]),
        # torchrun does not change the program itself.
        (commanded("p${local_rank}", "${local_rank}", entry="program"), ["p${local_rank}", "1"]),
    ],
)
def test_the_local_rank_is_replaced_as_torchrun_does(made: AgentSpec, expected: list[str]) -> None:
    assert argv(made, 1) == expected


@pytest.mark.parametrize("reads", [True, False])
def test_who_reads_an_empty_input_is_noticed(reads: bool) -> None:
    loop, seen = EventLoop(), list[int | None]()
    inputs = StandardInputs(loop, spec(own_console=True), seen.append)
    files = [inputs.open(rank) for rank in (0, 1)]
    word = "cat" if reads else "true"
    assert subprocess.run([word], stdin=files[1], capture_output=True, check=True).stdout == b""
    inputs.look()
    inputs.look()
    assert seen == ([1] if reads else [])
    inputs.close()
    loop.close()


def test_many_ranks_share_one_empty_input() -> None:
    """A file for each would use up the descriptors; then it is not known which rank has read it."""
    loop, seen = EventLoop(), list[int | None]()
    inputs = StandardInputs(loop, spec(nproc=100, own_console=True), seen.append)
    files = {inputs.open(rank) for rank in range(100)}
    assert len(files) == 1
    for _ in range(2):
        assert (
            subprocess.run(["cat"], stdin=files.copy().pop(), capture_output=True, check=True).stdout == b""
        )
    inputs.look()
    assert seen == [None]
    inputs.close()
    loop.close()


def test_in_a_pod_there_is_nothing_to_notice() -> None:
    loop = EventLoop()
    inputs = StandardInputs(loop, spec(runtime="kubernetes"), print)
    assert inputs.open(0) == subprocess.DEVNULL
    loop.close()


def test_a_restarted_rank_gets_the_same_input() -> None:
    loop = EventLoop()
    inputs = StandardInputs(loop, spec(own_console=True), print)
    first = inputs.open(0)
    assert isinstance(first, int)
    assert inputs.open(0) == first
    assert os.get_inheritable(first) is False
    inputs.close()
    loop.close()
