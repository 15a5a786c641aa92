"""Job files and project files: where they are looked for, and what they may hold."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.config.resolution import Resolved, resolve
from torchnet.config.sources import SIZE_LIMIT
from torchnet.config.validation_errors import SpecError


def launched(cwd: Path, config: str | None = None, **flags: object) -> Resolved:
    return resolve({"script": "train.py"} | flags, {}, cwd, config)


def refused(cwd: Path, config: str | None = None, **flags: object) -> str:
    with pytest.raises(SpecError) as caught:
        launched(cwd, config, **flags)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_a_job_file_gives_the_whole_job(weird_tmp_path: Path) -> None:
    folder = weird_tmp_path / "launch"
    folder.mkdir()
    (folder / "job.toml").write_text(
        'script = "train.py"\nargs = ["--epochs", "3"]\nnnodes = 4\nnproc-per-node = "gpu"\n[env]\nA = 1\n'
        '[network]\nrate = "1gbit"\n[run]\nstall_timeout = "1min"\n'
        '[output]\njson = "out/r.json"\nlog-dir = "/logs"\n'
    )
    resolved = resolve({}, {}, weird_tmp_path, "launch/job.toml")
    job = resolved.job
    assert (job.script, job.args, job.nnodes, job.nproc_per_node) == (
        "launch/train.py",
        ("--epochs", "3"),
        4,
        "gpu",
    )
    assert (job.env, job.network.rate, job.run.stall_timeout) == ({"A": "1"}, 10**9, 60)
    assert (job.output.json_path, job.output.log_dir) == ("launch/out/r.json", "/logs")
    assert resolved.origins["network.rate"].where == "launch/job.toml: network.rate"


def test_a_script_on_the_command_line_does_not_get_the_files_arguments(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('script = "a.py"\nargs = ["--epochs", "3"]\n')
    job = resolve({"script": "b.py", "args": ()}, {}, tmp_path, "job.toml").job
    assert (job.script, job.args) == ("b.py", ())
    assert launched(tmp_path, "job.toml").job.args == ()


def test_paths_of_a_file_are_relative_to_it_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for text, script in (
        ('script = "pkg.mod"\nmodule = true', "pkg.mod"),
        ('script = "nvidia-smi"\nno_python = true', "nvidia-smi"),
        ('script = "./run.sh"\nno_python = true', "sub/./run.sh"),
        ('script = "/abs/x.py"', "/abs/x.py"),
    ):
        (tmp_path / "sub" / "job.toml").write_text(text)
        assert resolve({}, {}, tmp_path, "sub/job.toml").job.script == script
    (tmp_path / "sub" / "job.toml").write_text('output.json = "-"')
    assert launched(tmp_path, "sub/job.toml").job.output.json_path == "-"


def test_the_nearest_project_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "torchnet.toml").write_text("nnodes = 3\n[output]\njson = 'r.json'")
    resolved = launched(inner)
    assert resolved.job.nnodes == 3
    assert resolved.origins["nnodes"].where == "../../torchnet.toml: nnodes"
    assert resolved.job.output.json_path == "../../r.json"
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.torchnet]\nnnodes = 5")
    assert launched(inner).origins["nnodes"].where == "../pyproject.toml: tool.torchnet.nnodes"
    (tmp_path / "a" / "torchnet.toml").write_text("nnodes = 6")
    assert launched(inner).job.nnodes == 6


def test_a_pyproject_without_a_table_is_passed_by(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "torchnet.toml").write_text("nnodes = 3")
    for text in (
        "[project]\nname = 'x'",
        "[tool.black]\nx = 'torchnet'",
        "this is no TOML and names nothing of ours",
    ):
        (inner / "pyproject.toml").write_text(text)
        assert launched(inner).job.nnodes == 3


def test_the_search_ends_at_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "torchnet.toml").write_text("nnodes = 3")
    assert launched(inner).job.nnodes == 3
    (tmp_path / "repo" / ".git").mkdir()
    assert launched(inner).job.nnodes == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_project_file_of_another_user_is_not_read(tmp_path: Path) -> None:
    inner = tmp_path / "mine"
    inner.mkdir()
    planted = tmp_path / "torchnet.toml"
    planted.write_text("nnodes = 3")
    assert launched(inner).job.nnodes == 3
    os.chown(planted, 12345, 12345)
    resolved = launched(inner)
    assert resolved.job.nnodes == 2
    assert "another user" in resolved.warnings[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes = 3", 'did you mean "nnodes"?'),
        ('rate = "1gbit"', 'did you mean "network.rate"?'),
        ("[network]\nnnodes = 3", 'did you mean "nnodes"?'),
        ("[netwrok]\nrate = 1", "netwrok"),
        ("network = 3", "is not a table"),
        ("env = 3", "is not a table of variables"),
        ('[env]\n"../x" = "1"', '"../x"'),
        ('[env]\nA = "\\u0000"', "NUL"),
        ("[env]\nA = [1]", "is not text"),
        ('args = ["\\u0000"]', "NUL"),
        ("args = [1]", "is not text"),
        (f'args = ["{"x" * 131_072}"]', "131072 bytes"),
        (f'env.A = "{"é" * 65_536}"', "131072 bytes"),
        ("nnodes = true", "is not a whole number"),
        ("nnodes = 2.5", "is not a whole number"),
        (f"nnodes = 0x{'f' * 10_000}", "too large"),
        ("[output]\nmin-share = 0.5\nmin_share = 0.5", "twice"),
        ("[run]\ntimeout = 2020-01-01", "is not a duration"),
        ("nnodes = ", "TOML"),
        ("nnodes = 1\nnnodes = 2", "TOML"),
        ("- yaml\n- list", "TOML"),
        (f"x = {'9' * 10_000}", "TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(SpecError) as caught:
        resolve({}, {}, tmp_path, "job.toml")
    assert any(said in str(problem) and "job.toml" in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["job.yaml", "job.yml", "JOB.YAML", "job.json"])
def test_yaml_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("!!python/object/apply:os.system ['touch planted']")
    assert "only TOML" in refused(tmp_path, name)
    assert not (tmp_path / "planted").exists()


def test_a_yaml_bomb_under_another_name_is_no_toml(tmp_path: Path) -> None:
    bomb = "a: &a [x]\n" + "".join(f"{n}: &{n} [*a,*a]\n" for n in range(1000))
    (tmp_path / "job.toml").write_text(bomb)
    assert "TOML" in refused(tmp_path, "job.toml")


def test_a_file_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    with open(tmp_path / "job.toml", "wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    message = refused(tmp_path, "job.toml")
    assert tracemalloc.get_traced_memory()[1] < SIZE_LIMIT
    tracemalloc.stop()
    assert "100000000 bytes" in message


def test_a_file_without_an_end_is_read_to_the_limit(tmp_path: Path) -> None:
    tracemalloc.start()
    message = refused(tmp_path, "/dev/zero")
    assert tracemalloc.get_traced_memory()[1] < 4 * SIZE_LIMIT
    tracemalloc.stop()
    assert f"{SIZE_LIMIT} bytes" in message


@pytest.mark.parametrize("name", ["a\nb.toml", "\x1b[31m.toml", "\u202e.toml", "\udcff.toml"])
def test_a_hostile_name_is_shown_escaped(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("nnodes = 0\nnodes = 1\n")
    message = refused(tmp_path, name)
    assert message.count(".toml: n") == 2
    assert message.replace("\n", "").isprintable()
    assert message.count("\n") == 3


def test_a_large_project_file_is_no_reason_to_stop_unless_it_is_ours(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("#" * (SIZE_LIMIT + 1))
    resolved = launched(tmp_path)
    assert resolved.job.nnodes == 2
    assert "pyproject.toml" in resolved.warnings[0]
    (tmp_path / "torchnet.toml").write_text("#" * (SIZE_LIMIT + 1))
    assert "torchnet.toml" in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 10_000, "x = " + "{a=" * 10_000, "[" + "a." * 10_000 + "a]\nb=1"]
)
def test_deep_nesting_is_one_problem(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    message = refused(tmp_path, "job.toml")
    assert len(message) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "[" + "a." * 520_000 + "a]",
        "a." * 520_000 + "a=1",
        '"a" . ' * 170_000 + "a=1",
        "x = " + "[" * 1_040_000,
    ],
    ids=["table", "key", "quoted", "array"],
)
def test_no_file_takes_long(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    before = time.process_time()
    assert len(refused(tmp_path, "job.toml")) < 1000
    assert time.process_time() - before < 2


def test_thousands_of_unknown_keys_are_told_shortly(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("".join(f"key{number} = 1\n" for number in range(50_000)))
    before = time.process_time()
    message = refused(tmp_path, "job.toml")
    assert time.process_time() - before < 4
    assert "50000" in message
    assert len(message) < 10_000


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("missing.toml", "no such file"),
        (".", "is a directory"),
        ("", "is a directory"),
        ("a\0b", "NUL"),
        ("x" * 5000, "too long"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, config: str, said: str) -> None:
    message = refused(tmp_path, config)
    assert said in message
    assert message.replace("\n", "").isprintable()


def test_a_missing_file_is_told_together_with_wrong_flags(tmp_path: Path) -> None:
    message = refused(tmp_path, "missing.toml", nnodes="0")
    assert "missing.toml" in message
    assert "nnodes" in message


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b"nnodes = 3\n# \xff")
    assert "UTF-8" in refused(tmp_path, "job.toml")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_job_or_a_problem(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "job.toml").write_bytes(data)
    message = ""
    try:
        launched(folder, "job.toml")
    except SpecError as error:
        message = str(error)
    assert message.replace("\n", "").isprintable()
