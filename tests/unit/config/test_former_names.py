"""Settings that have been renamed: the old names do what the new ones do, and are shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.asked_kubernetes import BASE
from torchnet import api
from torchnet.cli import main
from torchnet.config.job_spec import JobSpec
from torchnet.config.resolution import Resolved, resolve
from torchnet.config.settings import BY_PATH, FIELDS, FORMER_FLAGS, FORMER_PATHS
from torchnet.config.validation_errors import SpecError

FLAGS = dict(BASE)
KUBERNETES = ("--on", "kubernetes", "--network", "net", "--image", "example.org/image:1")


def resolved(cwd: Path, text: str = "", **environ: str) -> Resolved:
    (cwd / "torchnet.toml").write_text(text)
    return resolve(FLAGS, environ, cwd)


def test_the_earlier_names_are_no_present_ones() -> None:
    flags, paths = {field.flag for field in FIELDS}, set(BY_PATH)
    assert FORMER_FLAGS
    assert not set(FORMER_FLAGS) & flags
    assert set(FORMER_FLAGS.values()) <= flags
    assert not set(FORMER_PATHS) & paths
    assert set(FORMER_PATHS.values()) <= paths


@pytest.mark.parametrize("command", ["launch", "bench"])
def test_the_old_flag_is_the_new_one_on_each_command(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    shown = []
    for flag in ("--kind", "--as"):
        words = [command, *KUBERNETES, "--dry-run", "--run-id", "r", flag, "jobset"]
        assert main([*words, *(["train.py"] if command == "launch" else [])]) == 0
        shown.append(capsys.readouterr().out)
    assert "kind: JobSet" in shown[0]
    assert shown[0] == shown[1]


def test_what_follows_the_script_is_the_scripts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    assert main(["launch", "--dry-run", "train.py", "--as", "pods"]) == 0
    assert '- "--as"\n' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "environ", "where"),
    [
        ('[kubernetes]\nkind = "jobset"\n', {}, "torchnet.toml: kubernetes.kind"),
        ('[kubernetes]\nworkload = "jobset"\n', {}, "torchnet.toml: kubernetes.workload"),
        ("", {"TORCHNET_KIND": "jobset"}, "TORCHNET_KIND"),
        ("", {"TORCHNET_AS": "jobset"}, "TORCHNET_AS"),
        ("", {"TORCHNET_AS": "pods", "TORCHNET_KIND": "jobset"}, "TORCHNET_KIND"),
        ('[kubernetes]\nkind = "pods"\n', {"TORCHNET_AS": "jobset"}, "TORCHNET_AS"),
        ("", {"TORCHNET_AS": "jobset", "TORCHNET_KIND": ""}, "TORCHNET_AS"),
    ],
    ids=str,
)
def test_variables_and_keys(tmp_path: Path, text: str, environ: dict[str, str], where: str) -> None:
    found = resolved(tmp_path, text, **environ)
    assert (found.job.kubernetes.form, found.warnings) == ("jobset", ())
    assert found.origins["kubernetes.kind"].where == where


def test_both_keys_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        resolved(tmp_path, '[kubernetes]\nkind = "job"\nworkload = "pods"\n')
    (problem,) = caught.value.problems
    assert problem.path == "kubernetes.kind"
    assert "kubernetes.workload" in problem.what


def test_an_invalid_value_is_reported_where_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="TORCHNET_AS") as caught:
        resolved(tmp_path, TORCHNET_AS="deployment")
    (problem,) = caught.value.problems
    assert (problem.path, problem.valid) == ("kubernetes.kind", "job, jobset, pods")


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "jobset"},
        {"workload": "jobset"},
        {"as": "jobset"},
        {"kubernetes": {"kind": "jobset"}},
        {"kubernetes": {"workload": "jobset"}},
    ],
    ids=str,
)
def test_keywords_of_the_python_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    class Taken(Exception):
        """The job of the launch, which ends before anything is started."""

    def taken(job: JobSpec) -> None:
        raise Taken(job.kubernetes.form)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "runtime_of", taken)
    common: dict[str, Any] = {"on": "kubernetes", "network": "ml/net", "image": "example.org/image:1"}
    with pytest.raises(Taken, match="jobset"):
        api.launch("train.py", **common, **settings)


def test_manifests_have_the_old_flag_too(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for flag in ("--type", "--kind"):
        assert main(["manifests", "backend-network", flag, "bridge"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "backend-network --type bridge" in shown[0]
