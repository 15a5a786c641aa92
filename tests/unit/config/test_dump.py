"""The dry run's YAML and JSON: every value, its origin, and the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.config.dump import as_json, as_yaml, shown
from torchnet.config.job_spec import JobSpec
from torchnet.config.resolution import resolve

HOSTILE = [
    "a b",
    "a\nb",
    'say "hi"',
    "back\\slash",
    "# no comment",
    ": {}",
    "yes",
    "1e3",
    "null",
    "é 中 😀",
    "\x1b[31mred\x1b[0m",
    "\u202eevil",
    "\u2028",
    "\udcff",
    "",
    "'",
    "{a: b}",
    "*alias",
    "!!python/object:os.system",
    "- x",
    "\t",
    "\ufeff",
]


CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(
    "\udc80\udcff"
)


def plain(job: JobSpec) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(as_json(job, {}))["job"]
    return document


def loaded(text: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_each_value_stands_beside_its_origin(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("[run]\ngrace = '30s'\n[env]\nA = 'x'")
    resolved = resolve(
        {"script": "train.py", "args": ("--epochs", "3"), "network.rate": "1gbit"},
        {"TORCHNET_NNODES": "4"},
        tmp_path,
        "job.toml",
    )
    lines = as_yaml(resolved.job, resolved.origins).splitlines()
    for line in (
        '"on": local  # default',
        "script: train.py  # the command line",
        "args:  # the command line",
        '- "--epochs"',
        "nnodes: 4  # TORCHNET_NNODES",
        "  A: x  # job.toml: env.A",
        "  rate: 1000000000  # 1gbit, --rate",
        "  grace: 30.0  # 30s, job.toml: run.grace",
        "  stall_timeout: 300.0  # 5min, default",
        "run_id: null  # default",
    ):
        assert line in lines
    assert len([line for line in lines if "  # " in line]) == len(shown(resolved.job))
    assert not [line for line in lines if line.startswith("kubernetes")]


def test_yaml_and_json_hold_the_same_job() -> None:
    resolved = resolve(
        {"script": "a.py", "args": tuple(HOSTILE), "output.ranks": "0-2", "env": ["NO=1", "on=2"]}, {}
    )
    job = loaded(as_yaml(resolved.job, resolved.origins))
    assert job == plain(resolved.job)
    assert set(job) >= {"on", "script", "args", "network", "run", "output", "env"}
    assert job["args"] == HOSTILE
    assert job["env"] == {"NO": "1", "on": "2"}


@settings(deadline=None)
@given(
    args=st.lists(st.text(CHARACTERS), max_size=4),
    env=st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
        st.text(CHARACTERS),
    ),
    share=st.floats(min_value=0, max_value=1),
    seconds=st.floats(min_value=0, max_value=1e7),
)
def test_any_job_can_be_read_again(
    args: list[str], env: dict[str, str], share: float, seconds: float
) -> None:
    job = JobSpec.model_validate(
        {
            "script": "x.py",
            "args": args,
            "env": env,
            "output": {"min_share": share},
            "run": {"grace": seconds},
        }
    )
    text = as_yaml(job, {})
    assert loaded(text) == plain(job)
    assert all(line.isprintable() for line in text.splitlines())
    assert loaded(text)["args"] == args


@pytest.mark.parametrize("where", HOSTILE)
def test_an_origin_cannot_leave_its_comment(where: str) -> None:
    resolved = resolve({"script": "a.py"}, {})
    origins = {
        path: type(origin)("job file", f"{where}: {path}") for path, origin in resolved.origins.items()
    }
    assert loaded(as_yaml(resolved.job, origins)) == plain(resolved.job)


def test_the_same_job_gives_the_same_bytes() -> None:
    one = resolve({"script": "a.py", "env": ["B=1", "A=2"]}, {"TORCHNET_MTU": "1500"})
    two = resolve({"env": ["A=2", "B=1"], "script": "a.py"}, {"TORCHNET_MTU": "1500"})
    for show in (as_yaml, as_json):
        assert show(one.job, one.origins) == show(two.job, two.origins)


def test_json_names_layer_and_place() -> None:
    resolved = resolve({"script": "a.py", "network.rate": "1gbit"}, {})
    document = json.loads(as_json(resolved.job, resolved.origins))
    assert document["job"]["network"]["rate"] == 10**9
    assert document["origins"]["network.rate"] == {"layer": "flag", "where": "--rate"}
    assert document["origins"]["nnodes"] == {"layer": "default", "where": "default"}
