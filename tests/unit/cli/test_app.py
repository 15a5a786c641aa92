"""The command as people start it: exit codes, what goes to which stream, and what it loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torchnet.cli import entry_point
from torchnet.errors import NetworkError, TorchnetError, UsageError

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "kubernetes", "pydantic", "rich", "pyroute2")


def torchnet(*words: str | bytes, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """``python -m torchnet WORDS``, with none of the caller's TORCHNET_* variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHNET_")}
    return subprocess.run(
        [sys.executable, "-m", "torchnet", *words],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | environ,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


def shell(words: str) -> subprocess.CompletedProcess[str]:
    """``torchnet WORDS`` by a shell, for its redirections."""
    command = f"{sys.executable} -m torchnet {words}"
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def loaded(*words: str) -> set[str]:
    """The top-level modules in ``sys.modules`` after ``torchnet WORDS``."""
    code = "import sys; from torchnet.cli import main; main(sys.argv[1:]); print('\\n', *sys.modules, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return {name.partition(".")[0] for name in ran.stderr.split()}


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("launch", "--help"),
        ("bench", "--help"),
        ("env", "--help"),
        ("--version",),
        ("env", "--explain"),
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = loaded(*words)
    assert {"typer", "torchnet"} <= modules
    assert not modules & set(HEAVY)


def test_a_dry_run_loads_no_torch_and_no_kubernetes() -> None:
    modules = loaded("launch", "--dry-run", "train.py")
    assert "pydantic" in modules  # else this would be guarding nothing
    assert not modules & (set(HEAVY) - {"pydantic"})


def test_version() -> None:
    assert re.fullmatch(r"torchnet \S.*\n", torchnet("--version").stdout)


def test_help_names_the_commands_for_people() -> None:
    ran = torchnet("--help")
    assert ran.returncode == 0
    assert re.search(r"^ +launch ", ran.stdout, re.MULTILINE)
    assert re.search(r"^ +env ", ran.stdout, re.MULTILINE)
    assert "agent" not in ran.stdout
    assert torchnet("-h").stdout == ran.stdout


def test_without_a_word_it_shows_the_help() -> None:
    ran = torchnet()
    assert ran.returncode == 2
    assert "launch" in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("launhc",), "Did you mean 'launch'?"),
        (("launch", "--rat", "1gbit", "x.py"), "--rate"),
        (("launch", "--nnodes"), "requires an argument"),
        (("launch", "--quiet=3", "x.py"), "does not take a value"),
        (("launch", "-o", "yaml", "x.py"), "--dry-run"),
        (("launch", "--dry-run", "-o", "xml", "x.py"), "yaml, json"),
        (("launch",), "script: "),
        (("launch", "missing.py"), "no such file"),
        (("launch", "--config", "job.yaml"), "only TOML"),
        (("env", "too", "many"), "too"),
        (("env",), "torchnet env --explain"),
        (("env", "--explain", "-o", "xml"), "table, json"),
    ],
    ids=str,
)
def test_wrong_usage_is_exit_2_and_names_the_next_step(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "job.yaml").touch()
    ran = torchnet(*words, cwd=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "torchnet" in ran.stderr
    # What a shell would evaluate fails as well.
    assert ran.stdout == ("false\n" if words[0] == "env" and "--explain" not in words else "")


def test_three_wrong_values_are_three_lines_and_the_next_command() -> None:
    ran = torchnet("launch", "--nnodes", "0", "--rate", "fast", "--min-share", "2", "train.py")
    assert ran.returncode == 2
    _, nnodes, rate, share, fix = ran.stderr.splitlines()
    assert re.fullmatch(r'  nnodes: "0" .* \(from --nnodes\); valid: .*1 to 10000', nnodes)
    assert re.fullmatch(r'  network\.rate: "fast" .* \(from --rate\); valid: .*1gbit.*', rate)
    assert re.fullmatch(r'  output\.min_share: "2" .* \(from --min-share\); valid: .*0 to 1', share)
    assert fix.endswith("torchnet launch --help")


def test_explain_is_a_table_that_fits(tmp_path: Path) -> None:
    for columns in ("60", "100", "200"):
        ran = torchnet("env", "--explain", cwd=tmp_path, COLUMNS=columns)
        assert ran.returncode == 0
        assert max(map(len, ran.stdout.splitlines())) <= int(columns)
        for name in (
            "MASTER_ADDR",
            "GLOO_SOCKET_IFNAME",
            "NCCL_SOCKET_IFNAME",
            "TORCHELASTIC_USE_AGENT_STORE",
        ):
            assert re.search(rf"^{name}\b", ran.stdout, re.MULTILINE)
    rows = json.loads(torchnet("env", "--explain", "-o", "json").stdout)
    assert {"name", "value", "reason", "source"} <= set(rows[0])


def test_a_closed_pipe_is_no_error_message() -> None:
    for words in ("launch --help", "launch --dry-run x.py", "env --explain"):
        assert shell(f"{words} | true").stderr == ""


@pytest.mark.parametrize("words", ["launch --dry-run x.py", "env --explain", "env --explain -o json"])
def test_a_full_disk_is_named(words: str) -> None:
    ran = shell(f"{words} > /dev/full")
    assert ran.returncode == 70
    assert ran.stderr == "torchnet: cannot write to stdout (No space left on device)\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(closed: str) -> None:
    ran = shell(f"launch --dry-run x.py {closed}")
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert shell(f"launch --nnodes 0 x.py {closed}").returncode == 2


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path) -> None:
    ran = torchnet("launch", "--dry-run", "é中.py", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert 'script: "\\xe9\\u4e2d.py"' in ran.stdout


def test_the_agent_gets_its_arguments_untouched() -> None:
    code = (
        "import sys, types; m = types.ModuleType('torchnet.agent.command_line');"
        " m.main = lambda argv: print(argv) or 7;"
        "sys.modules['torchnet.agent.command_line'] = m; from torchnet.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["agent", "--help", "--", "-x", "--", "a b"]
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (7, f"{words[1:]}\n")


def act(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def action() -> int:
        raise error

    code = entry_point._guard(action)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (NetworkError, 4), (TorchnetError, 70)])
def test_errors_of_ours_are_text_and_their_code(
    kind: type[UsageError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert act(kind("what", fix="how"), capsys) == (code, "torchnet: what\n  fix: how\n")


def test_ctrl_c_is_130_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert act(KeyboardInterrupt(), capsys) == (130, "")
    wrapped = RuntimeError("Error calling __set_name__")
    wrapped.__cause__ = KeyboardInterrupt()
    assert act(wrapped, capsys) == (130, "")


def test_ctrl_c_while_a_dataclass_is_made_is_an_exit_code(tmp_path: Path) -> None:
    """CPython would end by the signal itself."""
    script = """
import os, signal, sys
from torchnet.cli import entry_point
entry_point._run = lambda _: exec("os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]", globals())
sys.exit(entry_point.main([]))
"""
    (tmp_path / "interrupted.py").write_text(script)
    words = [sys.executable, "-m", "interrupted"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(words, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_an_error_nobody_thought_of_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHNET_TRACEBACK", raising=False)
    code, text = act(ZeroDivisionError("a\x1b[31m\nb"), capsys)
    assert code == 70
    assert "internal error" in text
    assert "Traceback" not in text
    assert text.count("\n") == 2
    assert "\x1b" not in text
    monkeypatch.setenv("TORCHNET_TRACEBACK", "1")
    assert "Traceback" in act(ZeroDivisionError(), capsys)[1]
