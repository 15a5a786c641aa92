"""The files in manifests/: what the command prints, nothing else, and the same objects in both forms."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from torchnet.cli import main
from torchnet.k8s.addons.catalog import FILES

FOLDER = Path(__file__).resolve().parents[4] / "manifests"
AGAIN = "torchnet manifests {} > manifests/{}"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["manifests", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_what_the_command_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *FILES[name])
    assert (FOLDER / name).read_text(encoding="utf-8") == text, AGAIN.format(shlex.join(FILES[name]), name)


def test_there_are_no_other_files() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, "multus-guide.md"}


def test_the_files_of_the_guides_steps_take_no_options() -> None:
    steps = ("multus-install", "whereabouts-install", "backend-network-nad", "pytorch-pod-example")
    assert all(len(FILES[f"{name}.yaml"]) == 1 for name in steps)


@pytest.mark.parametrize("name", FILES)
def test_both_forms_hold_the_same_objects(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(printed(capsys, *FILES[name], "-o", "json"))
    assert listed["items"] == list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_the_head_names_the_command_that_prints_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    match = re.match(r"# Printed by\n#   (torchnet manifests .*)\n", text)
    assert match
    assert printed(capsys, *shlex.split(match[1])[2:]) == text


def test_two_times_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "multus", "--registry", "r.example") == printed(
        capsys, "multus", "--registry", "r.example"
    )


@pytest.mark.parametrize("name", ["multus", "whereabouts", "backend-network-nad"])
def test_short_names_and_the_files_own_are_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"{name}-install.yaml" if f"{name}-install.yaml" in FILES else f"{name}.yaml"
    assert printed(capsys, name) == (FOLDER / file).read_text(encoding="utf-8")


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(dict.fromkeys(words[0] for words in FILES.values()))
