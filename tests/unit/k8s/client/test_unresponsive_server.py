"""A server that refuses connections, or takes them and is silent: told of once, and signals end the waiting."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api_answers import Answer, Server, kubeconfig, serving
from tests.unit.aside import aside, interrupt, until
from torchnet.cli import main
from torchnet.k8s.client import access

server = pytest.fixture(serving)
COMMANDS = ("status", "logs", "attach", "down", "verify", "launch")
UNDONE = {
    "status": "not all runs were listed",
    "logs": "nothing was changed",
    "attach": "nothing was changed",
    "down": "nothing was removed",
    "verify": "no test pods were created",
    "launch": "nothing was created",
}


@pytest.fixture(params=["refuses", "silent"])
def dead(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a port that nobody listens on, or of one that is never served."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if request.param == "silent":
            listening.listen()
        yield address


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a launch is from, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "train.py").write_text("")
    return tmp_path / "config"


def command(name: str, config: Path, address: str) -> list[str]:
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(config, address))]
    launch = ["--on", "kubernetes", "--image", "x:1", "--network", "net"]
    return [name, *launch, *place, "train.py"] if name == "launch" else [name, *place]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_it_at_once_and_what_was_not_done_is_said(
    words: Path, dead: str, capsys: pytest.CaptureFixture[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "NOTICE_SECONDS", 0.5)
    sent: list[float] = []
    with aside(1.2, lambda: sent.append(time.monotonic()), interrupt):
        code = main(command(name, words, dead))
    assert time.monotonic() - sent[0] < 1.0
    assert code == 130
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == f"torchnet: stopped by SIGINT: {UNDONE[name]}"
    assert said.count("no response from") == 1, "of its silence"
    assert f"no response from {dead} (context 'here') yet" in said
    assert ("yet (connection refused); retrying for 30 s" in said) is ("retrying for 60 s" not in said)


def test_sigterm_is_heard_as_well(words: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        argv = command("status", words, f"http://127.0.0.1:{listening.getsockname()[1]}")
        ran = subprocess.Popen([sys.executable, "-m", "torchnet", *argv], stderr=subprocess.PIPE, text=True)
        with listening.accept()[0]:
            ran.send_signal(signal.SIGTERM)
            _, said = ran.communicate(timeout=5)
    assert ran.returncode == 143
    assert said == f"torchnet: stopped by SIGTERM: {UNDONE['status']}\n"


@pytest.mark.parametrize(
    ("problem", "said"),
    [((503, {}, {}), "HTTP 503"), ((0, {}, {}), "closed without a response")],
)
def test_the_silence_is_told_once_beside_the_answer(
    words: Path,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    problem: Answer,
    said: str,
) -> None:
    """Of two calls that are answered late, the first."""
    monkeypatch.setattr(access, "NOTICE_SECONDS", 0.3)
    late: list[Answer] = [problem] * 3
    server.answers = [*late, (404, {}, {}), *late, (200, {}, {"items": []})]
    assert main([*command("status", words, server.address), "-o", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    (line,) = err.splitlines()
    what = "no usable response" if said.startswith("HTTP") else "no response"
    assert line.startswith(f"torchnet: warning: {what} from {server.address} (context 'here') yet (")
    assert said in line
    assert line.endswith("retrying for 30 s")


def test_who_gets_answers_in_time_hears_nothing_of_it(
    words: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all of it takes longer than one may."""
    monkeypatch.setattr(access, "NOTICE_SECONDS", 1.2)
    late: list[Answer] = [(503, {}, {}), (503, {}, {})]
    none: Answer = (200, {}, {"items": []})
    server.answers = [*late, none] * 4
    assert main(command("status", words, server.address)) == 0
    assert len(server.asked) == 9, "three kinds"
    assert "no response" not in capsys.readouterr().err


def test_one_that_says_nothing_is_told_of_with_the_time_that_it_gets() -> None:
    said: list[str] = []
    of = access.ResponseMonitor()
    of.say = said.append
    with of.track("https://x", patience=30.0, read=60.0, stream=False) as asked:
        asked.began -= 3.5
        of.look()
        of.look()
    assert said == ["no response from https://x yet; retrying for 60 s"]
    assert of.seconds == 0.0


def test_a_stream_may_take_its_time_but_for_a_try_that_failed() -> None:
    of = access.ResponseMonitor()
    with of.track("https://x", patience=30.0, read=60.0, stream=True) as asked:
        asked.began -= 5.0
        assert of.seconds == 0.0
        asked.failed("Connection refused")
        assert of.seconds > 4.0
        asked.answered()
        assert of.seconds == 0.0


def test_a_signal_in_the_middle_of_the_logs_says_that_they_are_not_whole(
    words: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.unit.kubernetes_objects import ended, job

    pods: Answer = (200, {}, {"items": [ended(0)]})
    server.answers = [(404, {}, {}), (200, {}, {"items": [job()]}), pods, pods, (503, {}, {})]
    with aside(lambda: until(lambda: len(server.asked) > 5), interrupt):
        assert main(command("logs", words, server.address)) == 130
    assert "stopped by SIGINT" in capsys.readouterr().err
