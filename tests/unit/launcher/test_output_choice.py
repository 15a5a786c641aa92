"""What is shown of a job, and how."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.agents import spec
from torchnet.config.job_spec import Output
from torchnet.launcher import output_choice


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (Output(), ()),
        (Output(ranks=(1, 2)), (1, 2)),
        (Output(local_ranks=(1,)), [1, 3]),
        (Output(local_ranks=(0, 1), ranks=(2,)), [2]),
        (Output(local_ranks=(7,)), [-1]),
    ],
)
def test_local_ranks_select_on_each_node(output: Output, shown: object) -> None:
    assert output_choice.ranks(output, spec()) == shown


def test_the_template_is_torchruns() -> None:
    assert output_choice.prefix(Output(), spec()) is None
    output = Output(prefix_template="${role_name} $rank/${local_rank}@${hostname} ${other} $$:")
    render = output_choice.prefix(output, spec(role="r"))
    assert render is not None
    assert [render(rank) for rank in (0, 3)] == ["r 0/0@node-0 ${other} $:", "r 3/1@node-1 ${other} $:"]
    alone = output_choice.prefix(output, spec(nnodes=1))
    assert alone is not None
    assert alone(1) == f"default 1/1@{socket.gethostname()} ${{other}} $:"
    on_hosts = output_choice.prefix(output, spec(runtime="agent"))
    assert on_hosts is not None
    assert on_hosts(3) == f"default 3/1@{socket.gethostname()} ${{other}} $:"


def test_streams_need_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for specs in ([spec()], [spec(tee="0:0")], [spec(redirects="3", log_dir="logs")]):
        assert output_choice.with_log_dir(specs) == specs
    assert os.listdir(tmp_path) == []
    given = [spec(redirects="0:1"), spec(1, redirects="0:1")]
    made = output_choice.with_log_dir(given)
    (folder,) = tmp_path.iterdir()
    assert made == [replace(one, log_dir=str(folder)) for one in given]
