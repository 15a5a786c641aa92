"""The commands for runs on a cluster, as far as they go without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tests.unit.cli.test_app import HEAVY, loaded, torchnet

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("status", "logs", "attach", "down", "verify")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_plain_and_loads_nothing_heavy(command: str) -> None:
    ran = torchnet(command, "--help")
    assert ran.returncode == 0
    assert "--context" in ran.stdout
    assert "-n, --namespace" in ran.stdout
    assert not set(HEAVY) & loaded(command, "--help")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "UPPER"), "UPPER"),
        (("status", "../x"), "../x"),
        (("attach", "a" * 64), "64 characters"),
        (("down", "one", "two"), '"two"'),
        (("logs", "-n", "Not_A_Label"), "Not_A_Label"),
        (("logs", "--ranks", "x"), "--ranks"),
        (("status", "-o", "xml"), "valid: table, wide, json, yaml, name"),
        (("status", "one", "-A"), "-A cannot be combined with RUN"),
        (("status", "-l", "team=a", "one"), "-l cannot be combined with RUN"),
        (("logs", "--tail", "-2"), "--tail"),
        (("logs", "--tail", "1.5"), "--tail"),
        (("logs", "--since", "0"), "--since"),
        (("logs", "--since", "yesterday"), "--since"),
        (("logs", "-c", "sidecar"), "valid: prepare, worker"),
        (("verify", "--network", "a/b/c"), "--network"),
        (("verify", "--image", "a b"), "--image"),
        (("verify", "word"), '"word"'),
    ],
)
def test_names_are_checked_before_any_call(words: tuple[str, ...], said: str) -> None:
    ran = torchnet(*words, KUBECONFIG="/nonexistent")
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_cluster_the_way_to_one_is_told(command: str) -> None:
    ran = torchnet(command, KUBECONFIG="/nonexistent", KUBERNETES_SERVICE_HOST="")
    assert ran.returncode == 3, ran.stderr
    assert "kubeconfig" in ran.stderr
    assert "fix:" in ran.stderr


def test_kubectls_plugin_is_the_same_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-torchnet"] == scripts["torchnet"]
