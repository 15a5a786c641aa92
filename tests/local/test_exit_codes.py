"""The exit codes that are torchnet's own: 0, 2, 5, 124; those of failing ranks are in test_first_failure.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.jobs import Job, receipt, run, script


def test_a_script_that_ends_early_and_well_does_not_end_the_job(tmp_path: Path) -> None:
    text = """
        import os, time
        time.sleep(0.7 * int(os.environ["RANK"]))
        print("done")
    """
    done = run(script(tmp_path, text))
    assert (done.code, sorted(done.stdout.splitlines())) == (0, ["[rank 0] done", "[rank 1] done"])


def test_a_failing_scripts_code_goes_before_min_share(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    late = script(tmp_path, "import os, sys; sys.exit(9 if os.environ['RANK'] == '1' else 0)")
    done = run("--min-share", "0.5", "--json", path, late)
    assert (done.code, receipt(path)["exit_code"]) == (9, 9), done.stderr


def test_a_share_that_is_not_known_does_not_reach_min_share(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--min-share", "0", "--json", path, script(tmp_path, "pass"))
    found = receipt(path)
    assert (done.code, found["backend_share"], found["proof"]) == (5, None, "unknown"), done.stderr
    assert "--min-share 0 % is not proven: the share is unknown" in done.stderr


def test_a_timeout_is_124(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    sleep = script(tmp_path, "print('here', flush=True); import time; time.sleep(600)")
    with Job("--timeout", "2", "--json", path, sleep) as job:
        began = job.wait_for("preflight: ")
        done = job.finish()
    assert done.code == 124
    assert done.at - began < 2 + 10
    found = receipt(path)
    assert (found["exit_code"], found["failure"]["kind"]) == (124, "timeout")
    assert found["reason"] == "the job ran longer than --timeout 2 s"
    assert "root cause: the job ran longer than --timeout 2 s" in done.stderr
    assert [one["exit_code"] for one in found["ranks"]] == [143, 143]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--nnodes", "0", "x.py"), r"nnodes"),
        (("--min-share", "2", "--rate", "fast", "x.py"), r"min_share[\s\S]*rate|rate[\s\S]*min_share"),
        (("--nonsense", "x.py"), r"--nonsense"),
        ((), r"script"),
        (("--redirects", "4", "{script}"), r"redirects"),
        (("--signals-to-handle", "SIGKILL", "{script}"), r"SIGKILL"),
        (("--nproc-per-node", "gpu", "--env", "CUDA_VISIBLE_DEVICES=", "{script}"), r"0 GPUs"),
    ],
)
def test_what_cannot_be_asked_for_is_2(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    path = script(tmp_path, "open('started', 'w')")
    done = run(*(word.format(script=path) for word in arguments), cwd=tmp_path)
    assert done.code == 2
    assert re.search(named, done.stderr), done.stderr
    assert not (tmp_path / "started").exists()
