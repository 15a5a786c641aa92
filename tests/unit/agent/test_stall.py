"""A stall explained: from real stack dumps to one sentence on who waits for whom."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from torchnet.agent.messages import Heartbeat, Stacks
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stall import StallWatch, explain, main_thread, place

# What torch's own files look like in a dump: the path decides.
COLLECTIVE = """
    import time
    def wrapper(*arguments):
        return all_reduce(*arguments)
    def all_reduce(then):
        then()
"""
TRAIN = """
    import faulthandler, importlib.util, sys, threading
    spec = importlib.util.spec_from_file_location("c10d", sys.argv[1])
    c10d = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(c10d)
    ready = threading.Event()
    def busy():
        ready.wait()
    def dump():
        with open(sys.argv[2], "w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
    def step():
        c10d.wrapper(dump)
    def load():
        dump()
    def from_a_thread():
        thread = threading.Thread(target=dump)
        thread.start()
        thread.join()
    thread = threading.Thread(target=busy)
    thread.start()
    globals()[sys.argv[3]]()
    ready.set()
    thread.join()
"""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stacks of real processes, by the function that their main thread is in; another thread runs beside it."""
    folder = tmp_path_factory.mktemp("stacks")
    library = folder / "site-packages" / "torch" / "distributed" / "distributed_c10d.py"
    library.parent.mkdir(parents=True)
    library.write_text(textwrap.dedent(COLLECTIVE))
    (folder / "train.py").write_text(textwrap.dedent(TRAIN))
    found = {}
    for where in ("step", "load", "from_a_thread"):
        file = folder / where
        subprocess.run([sys.executable, folder / "train.py", library, file, where], check=True, timeout=60)
        found[where] = file.read_text()
    return found


def test_the_main_thread_is_told_from_others(dumps: dict[str, str]) -> None:
    for where, text in dumps.items():
        frames = main_thread(text)
        assert frames[-1].endswith("in <module>")
        assert any(frame.endswith(f"in {where}") for frame in frames)
        assert not any(frame.endswith("in busy") for frame in frames)
        assert "busy" in text
    assert not any(frame.endswith("in dump") for frame in main_thread(dumps["from_a_thread"]))


def test_a_place_is_the_users_line_and_torchs_function(dumps: dict[str, str]) -> None:
    # The innermost frames, which write the dump itself, stand for waiting in C.
    waits = [frame for frame in main_thread(dumps["step"]) if not frame.endswith("in dump")]
    where, inside = place(waits)
    line = next(n for n, text in enumerate(textwrap.dedent(TRAIN).splitlines(), 1) if "wrapper(dump)" in text)
    assert (where, inside) == (f"all_reduce (train.py:{line})", True)
    where, inside = place(main_thread(dumps["load"]))
    assert where.endswith(" in dump")
    assert where.startswith("train.py:")
    assert not inside


def test_places_of_nothing() -> None:
    assert place([]) == ("an unknown place", False)
    only = ['File "/x/torch/distributed/c10d.py", line 5 in barrier']
    assert place(only) == ("barrier", True)
    assert main_thread("") == []
    assert main_thread("no Python here\nat all") == []


def waiting(dump: str) -> str:
    return "\n".join(line for line in dump.splitlines() if not line.endswith("in dump"))


def test_who_waits_for_whom(dumps: dict[str, str]) -> None:
    wait = waiting(dumps["step"])
    answers = {
        0: Stacks({"0": wait, "1": wait}),
        1: Stacks({"2": wait, "3": dumps["load"]}, ("node-1: 3 packets to node-0 over net1 …",)),
    }
    lines = explain(12.4, answers).splitlines()
    assert lines[0].startswith("stalled: ")
    assert " 12 s" in lines[0]
    assert lines[1].startswith("waiting: ranks 0, 1, 2 in all_reduce (train.py:")
    assert "; for: rank 3 at train.py:" in lines[1]
    assert lines[2] == "node-1: 3 packets to node-0 over net1 …"
    assert [line for line in lines if line.startswith("rank ")] == [
        "rank 0:",
        "rank 1:",
        "rank 2:",
        "rank 3:",
    ]
    assert sum("in all_reduce" in line for line in lines) == 4


def test_all_wait_or_none_or_nobody_answers(dumps: dict[str, str]) -> None:
    wait = waiting(dumps["step"])
    assert "wait: ranks 0, 1 in all_reduce" in explain(5, {0: Stacks({"0": wait}), 1: Stacks({"1": wait})})
    assert ": rank 0 at train.py:" in explain(5, {0: Stacks({"0": dumps["load"]})})
    text = explain(5, {}, silent=[3, 4])
    assert "node rank 3, 4" in text
    assert "rank 7: no Python stack" in explain(5, {0: Stacks({"7": ""})})
    many = {0: Stacks({str(rank): wait for rank in range(100)})}
    assert "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 92 more in all_reduce" in explain(5, many)


class Watch:
    """A StallWatch of two workers, at a time that the test sets."""

    def __init__(self, **fields: Any) -> None:
        self.now = 1000.0
        self.asked = 0
        self.reports: list[tuple[str, bool]] = []
        self.blocked: list[str] = []
        self.progress = self.trickle = 0
        spec = AgentSpec("run", 2, 1, ("x.py",), name="node-0", **{"stall_timeout": 10.0, **fields})
        self.watch = StallWatch(
            spec,
            self._ask,
            lambda text, begun: self.reports.append((text, begun)),
            self.blocked.append,
            lambda: self.now,
        )
        self.watch.begin(2)

    def _ask(self) -> None:
        self.asked += 1

    def pass_(
        self,
        seconds: int,
        *,
        moves: bool = False,
        trickles: bool = False,
        frozen: bool = False,
        blocked: str = "",
        polls: int = 0,
        unseen: str = "",
    ) -> None:
        for _ in range(seconds):
            self.now += 1
            self.progress += moves
            self.trickle += trickles
            for node in (0, 1):
                count = self.progress if node else 0  # one worker's is enough
                heartbeat = Heartbeat(
                    count * 10_000 + polls,
                    frozen,
                    count,
                    blocked if node else "",
                    self.trickle if node else 0,
                    unseen if node else "",
                )
                self.watch.receive_heartbeat(node, heartbeat)
            self.watch.tick()


def test_a_job_whose_bytes_move_is_left_alone() -> None:
    watch = Watch()
    watch.pass_(60, moves=True)
    assert (watch.asked, watch.reports) == (0, [])


def test_a_stall_is_reported_once_and_again_after_it_moved() -> None:
    watch = Watch()
    watch.pass_(5, moves=True)
    watch.pass_(9)
    assert watch.asked == 0
    watch.pass_(2)
    assert watch.asked == 1
    watch.watch.receive_stacks(0, Stacks({"0": ""}))
    assert watch.reports == []  # the other one may still answer
    watch.pass_(5)
    ((text, begun),) = watch.reports
    assert begun
    assert "node rank 1:" in text
    watch.pass_(60)
    assert (watch.asked, len(watch.reports)) == (1, 1)
    watch.pass_(5, moves=True)
    watch.pass_(12)
    for node in (0, 1):
        watch.watch.receive_stacks(node, Stacks({str(node): ""}))
    assert (watch.asked, len(watch.reports)) == (2, 2)


def test_before_the_first_bytes_it_is_no_reason_to_stop() -> None:
    watch = Watch()
    watch.pass_(15)
    assert [begun for _, begun in watch.reports] == [False]
    connected = Watch()
    connected.pass_(15, polls=70)
    assert [begun for _, begun in connected.reports] == [True]


def test_a_trickle_is_told_once_and_is_no_reason_to_stop() -> None:
    watch = Watch()
    watch.pass_(5, moves=True)
    watch.pass_(200, trickles=True)
    ((text, stop),) = watch.reports
    assert text.startswith("slow: ")
    assert (watch.asked, stop) == (1, False)
    watch.pass_(9)
    assert watch.asked == 1
    watch.pass_(6)  # once it has ended, it does not hide a stall
    assert watch.asked == 2
    text, stop = watch.reports[-1]
    assert text.startswith("stalled: ")
    assert " 14 s" in text.splitlines()[0]
    assert stop


def test_what_cannot_be_counted_is_no_reason_to_stop() -> None:
    watch = Watch()
    watch.pass_(5, moves=True)
    watch.pass_(60, unseen="mlx5_0: its counters were reset")
    ((text, stop),) = watch.reports
    assert "mlx5_0: its counters were reset" in text.splitlines()[0]
    assert not text.startswith("stalled: ")
    assert "node rank 0, 1:" in text  # the stacks, or who gave none
    assert not stop


def test_ranks_that_wait_for_their_output_are_no_stall() -> None:
    watch = Watch()
    watch.pass_(60, blocked="rank 1 waits for its reader")
    (text,) = watch.blocked
    assert "rank 1 waits for its reader" in text
    assert " 10 s" in text
    assert (watch.asked, watch.reports) == (0, [])
    watch.pass_(9)  # since it continues
    assert watch.asked == 0
    watch.pass_(2)
    assert watch.asked == 1


def test_no_stall_while_frozen_switched_off_alone_or_done() -> None:
    frozen = Watch()
    frozen.pass_(60, frozen=True)
    off = Watch(stall_timeout=0.0)
    off.pass_(1000)
    loopback = Watch(loopback=True)  # where no bytes are counted
    loopback.pass_(60)
    done = Watch()
    done.watch.forget(0)
    done.watch.forget(1)
    done.pass_(60)
    assert (frozen.asked, off.asked, loopback.asked, done.asked) == (0, 0, 0, 0)
