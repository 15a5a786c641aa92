"""The ranks' lines as they reach a pipe: whose they are, whole, in order, and harmless, whatever they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.jobs import Ended, lines, run, script

STREAMS = """
    import os, sys
    rank = os.environ["RANK"]
    for number in range(3):
        print("out", rank, number)
        print("err", rank, number, file=sys.stderr)
"""


def test_each_line_has_its_rank_and_its_stream(tmp_path: Path) -> None:
    done = run("--nnodes", "2", "--nproc-per-node", "2", script(tmp_path, STREAMS))
    assert done.code == 0, done.stderr
    for rank in range(4):
        assert lines(done.stdout, rank) == [f"out {rank} {number}" for number in range(3)]
        assert lines(done.stderr, rank) == [f"err {rank} {number}" for number in range(3)]
    assert "\x1b" not in done.stdout + done.stderr, "colours are for terminals"
    # What has no rank before it is torchnet's: its lines, and the receipt at the end.
    assert re.match(r"torchnet: ", done.stderr)
    assert all(line.startswith("[rank ") for line in done.stdout.splitlines())


@pytest.mark.parametrize(("ranks", "shown"), [("0,3", {0, 3}), ("1-2", {1, 2}), ("2", {2})])
def test_ranks_filters(tmp_path: Path, ranks: str, shown: set[int]) -> None:
    done = run("--nnodes", "2", "--nproc-per-node", "2", "--ranks", ranks, script(tmp_path, STREAMS))
    assert done.code == 0, done.stderr
    for rank in range(4):
        assert bool(lines(done.stdout, rank)) == bool(lines(done.stderr, rank)) == (rank in shown)


def test_a_failure_is_shown_whosever_lines_are(tmp_path: Path) -> None:
    fails = STREAMS + "    sys.exit('oh no' if rank == '0' else 0)\n"
    done = run("--ranks", "1", script(tmp_path, fails))
    assert done.code == 1
    assert lines(done.stdout, 0) == []
    assert done.stderr.splitlines()[-1] == "[rank 0] oh no", "its last lines are the root cause"


def test_quiet_shows_the_scripts_lines_and_errors(tmp_path: Path) -> None:
    done = run("--quiet", script(tmp_path, STREAMS))
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 1) == ["out 1 0", "out 1 1", "out 1 2"]
    assert not re.search("joined|preflight:|receipt of", done.stderr)
    done = run("-q", script(tmp_path, "raise SystemExit(3)"))
    assert done.code == 3
    assert re.fullmatch(r"torchnet: error: rank [01] on node-[01] exited with code 3\n", done.stderr)


def hostile(tmp_path: Path, write: str, **options: str) -> Ended:
    """The end of a job of one rank that writes Python's bytes ``write`` to its standard output."""
    text = f"import os; data = {write}; [os.write(1, data[n:n + 65536]) for n in range(0, len(data), 65536)]"
    done = run("--standalone", script(tmp_path, text), **options)  # type: ignore[arg-type]
    assert done.code == 0, done.stderr
    return done


def test_binary_junk_is_escaped(tmp_path: Path) -> None:
    done = hostile(tmp_path, "bytes(range(256)) + b'\\n'")
    # Whatever it was, what comes out is text without control characters.
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", done.stdout)
    for shown in (r"\x00", r"\x1b", r"\x7f", r"\xff", "abc"):
        assert shown in done.stdout


def test_escape_sequences_do_not_reach_a_pipe(tmp_path: Path) -> None:
    sequences = r"b'\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07 \x1b[?1049h \x1b7 \x9b31m end\n'"
    done = hostile(tmp_path, sequences)
    (line,) = lines(done.stdout, 0)
    assert "\x1b" not in line
    assert line.startswith("red ")
    assert line.endswith("end")
    assert "title" not in line


def test_a_line_of_a_megabyte_is_whole(tmp_path: Path) -> None:
    done = hostile(tmp_path, "b'begin' + b'0123456789' * 100_000 + b'end\\nnext\\n'")
    first, second = lines(done.stdout, 0)
    assert first == "begin" + "0123456789" * 100_000 + "end"
    assert second == "next"


def test_a_megabyte_without_any_newline_is_whole(tmp_path: Path) -> None:
    done = hostile(tmp_path, "b'0123456789' * 100_000")
    assert done.stdout.replace("\n", "") == "[rank 0] " + "0123456789" * 100_000


def test_two_ranks_long_lines_do_not_mix(tmp_path: Path) -> None:
    text = """
        import os, sys
        for number in range(20):
            sys.stdout.write(os.environ["RANK"] * 200_000 + "\\n")
    """
    done = run(script(tmp_path, text))
    assert done.code == 0, done.stderr
    for rank in "01":
        pieces = lines(done.stdout, int(rank))
        assert "".join(pieces) == rank * 20 * 200_000


def test_progress_bars_become_lines_now_and_then(tmp_path: Path) -> None:
    text = """
        import os, sys, time
        for percent in range(101):
            sys.stderr.write(f"\\r{percent:3d}%|{'#' * (percent // 10)}| {os.environ['RANK']}")
            sys.stderr.flush()
            time.sleep(0.01)
        sys.stderr.write("\\n")
        print("after", file=sys.stderr)
    """
    done = run(script(tmp_path, text))
    assert done.code == 0, done.stderr
    assert "\r" not in done.stderr
    for rank in (0, 1):
        *states, last, after = lines(done.stderr, rank)
        assert (last, after) == (f"100%|##########| {rank}", "after")
        assert 1 <= len(states) < 30
        assert all(re.fullmatch(rf" *\d+%\|#*\| {rank}", state) for state in states)


def test_unfinished_lines_come_out_at_the_end(tmp_path: Path) -> None:
    text = """
        import os, sys
        sys.stdout.write("no newline " + os.environ["RANK"])
        sys.stdout.flush()
        os._exit(0)
    """
    done = run(script(tmp_path, text))
    assert sorted(done.stdout.splitlines()) == ["[rank 0] no newline 0", "[rank 1] no newline 1"]


def test_characters_that_are_cut_between_writes_stay_whole(tmp_path: Path) -> None:
    text = """
        import os, time
        for byte in "é中🔥\\n".encode():
            os.write(1, bytes([byte]))
            time.sleep(0.02)
    """
    done = run("--standalone", script(tmp_path, text))
    assert lines(done.stdout, 0) == ["é中🔥"]


def test_the_last_words_on_standard_error_end_the_root_cause(tmp_path: Path) -> None:
    text = """
        import sys
        print("old", file=sys.stderr)
        print(*range(100), sep="\\n")
        raise RuntimeError("oh no")
    """
    done = run("--standalone", script(tmp_path, text))
    assert done.code == 1
    cause = done.stderr.partition("root cause")[2]
    said = lines(cause, 0)
    assert said[-1] == "RuntimeError: oh no"
    assert "Traceback (most recent call last):" in said
    assert len(said) == 20
    assert said[0].isdigit()
