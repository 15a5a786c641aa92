"""``torchnet bench`` on the command line: its flags, its dry run, and ``torchnet bench diff``."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bench_results import changed, healthy
from torchnet.bench import results as model
from torchnet.bench.bench_options import JOB_FIELDS, OPTIONS
from torchnet.bench.results import Results
from torchnet.bench.worker import worker_config
from torchnet.cli import main
from torchnet.config.settings import FIELDS

WORKER = Path(__file__).resolve().parents[3] / "torchnet" / "bench" / "worker"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def dry(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], worker_config.WorkerConfig]:
    code = main(["bench", "--dry-run", "-o", "json", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    job: dict[str, Any] = json.loads(out)["job"]
    return job, worker_config.decode(job["args"][1])


def test_nccl_tests_letters_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    _, asked = dry(
        capsys, "all_gather", "-b", "8", "-e", "32", "-f", "2", "-w", "7", "-d", "int8", "--iters", "4"
    )
    assert (asked.collectives, asked.sizes) == (("all_gather",), (8, 16, 32))
    assert (asked.warmup, asked.dtype, asked.iters) == (7, "int8", 4)


def test_collectives_stand_before_the_flags_or_behind_them(capsys: pytest.CaptureFixture[str]) -> None:
    (first, asked), (second, asked_again) = (
        dry(capsys, *words) for words in (["reduce", "--nnodes", "3"], ["--nnodes", "3", "reduce"])
    )
    assert (first["nnodes"], second["nnodes"]) == (3, 3)
    assert asked.collectives == asked_again.collectives == ("reduce",)


def test_both_spellings_of_a_flag_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(capsys, "--max_bytes", "1K", "--nproc_per_node", "2")[0]["nproc_per_node"] == 2


def test_the_jobs_flags_are_the_launchs_but_for_what_a_benchmark_settles(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    settled = {
        "--module", "--no-python", "--standalone", "--max-restarts", "--stdin-rank", "--log-dir", "--tee",
        "--redirects", "--ranks", "--measure", "--full-receipt", "--min-share", "--code", "--detach",
        "--rdzv-id", "--role", "--virtual-local-rank", "--local-ranks-filter", "--no-prefix",
        "--log-line-prefix-template",
    }  # fmt: skip
    for field in FIELDS:
        if field.flag and not field.keyed:
            assert (re.search(rf"{field.flag}(?![-\w])", text) is None) == (field.flag in settled), field.path
    keys = [field.key for field in FIELDS if field.keyed and f"  {field.key}=" in text]
    assert keys == ["gloo_devices", "nccl_socket_nthreads", "nccl_nsocks_perthread"]
    assert "-n, --namespace" in text or "--namespace, -n" in text
    assert text.index("The benchmark:") < text.index("Job:")


def test_what_only_a_script_uses_disturbs_no_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A project's file has them for its training; here they are neither read nor checked."""
    (tmp_path / "torchnet.toml").write_text(
        "[tune]\nbucket_cap_mb = 'many'\ncompress = 'zip'\ngloo_devices = 2\n"
    )
    monkeypatch.setenv("TORCHNET_TUNE_COMPRESS", "zip")
    tune = dry(capsys)[0]["tune"]
    assert {name: tune[name] for name in ("gloo_devices", "bucket_cap_mb", "compress")} == {
        "gloo_devices": 2, "bucket_cap_mb": None, "compress": "none"
    }  # fmt: skip
    assert dry(capsys, "--tune", "gloo-devices=4")[0]["tune"]["gloo_devices"] == 4
    assert main(["bench", "--tune", "compress=bf16"]) == 2
    err = capsys.readouterr().err
    assert '"compress" has no effect here' in err
    assert "gloo_devices, nccl_socket_nthreads, nccl_nsocks_perthread" in err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["old.json", "new.json", "--help"]])
def test_diff_has_a_short_help_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "diff", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: torchnet bench diff OLD NEW\n")
    assert len(out.splitlines()) < 10
    assert "--min-bytes" not in out


def test_no_short_name_means_two_things() -> None:
    shorts = [option.short for option in OPTIONS if option.short]
    assert len(set(shorts)) == len(shorts)
    assert not {field.short for field in JOB_FIELDS if field.short} & set(shorts)


def test_wrong_values_of_the_job_and_of_the_benchmark_come_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "al_reduce", "-b", "8X", "--nnodes", "0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("torchnet: invalid benchmark: 3 errors")
    assert all(text in err for text in ("nnodes", "al_reduce", "8X", "fix: torchnet bench --help"))


def test_on_kubernetes_the_workers_modules_travel(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--on", "kubernetes", "-n", "ml", "--network", "b", "--image", "docker.io/pytorch/pytorch:2.9.0"]
    assert main(["bench", "--dry-run", "-o", "json", *words, "-e", "1K"]) == 0
    objects = json.loads(capsys.readouterr().out)["items"]
    data = next(one for one in objects if one["kind"] == "ConfigMap")["binaryData"]["code.zip"]
    names = zipfile.ZipFile(io.BytesIO(base64.b64decode(data))).namelist()
    assert set(names) == {path.name for path in WORKER.glob("*.py")}
    documents = [one.get("data", {}).get("spec.json") for one in objects]
    (spec,) = [json.loads(text) for text in documents if text]
    assert spec["command"][:2] == ["run.py", "--plan"]


def written(path: Path, results: Results) -> str:
    path.write_text(model.dump(results))
    return str(path)


def test_diff_of_the_same_is_0_and_of_a_slower_one_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = written(tmp_path / "old.json", healthy(seed=1))
    same = written(tmp_path / "same.json", healthy(seed=2))
    slow = written(tmp_path / "slow.json", healthy(seed=3, achieved=0.7))
    assert main(["bench", "diff", old, same]) == 0
    assert main(["bench", "diff", old, slow]) == 1
    assert "all_reduce" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "torchnet bench diff OLD NEW"),
        (["a.json"], "torchnet bench diff OLD NEW"),
        (["a.json", "b.json", "c.json"], "torchnet bench diff OLD NEW"),
        (["missing.json", "missing.json"], "missing.json"),
        (["text.json", "text.json"], "text.json"),
        (["receipt.json", "receipt.json"], "receipt.json"),
        (["--nnodes", "2", "a.json", "b.json"], "no flags"),
    ],
    ids=str,
)
def test_what_diff_cannot_compare_is_told(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.json").write_bytes(b"\xff\xfe")
    (tmp_path / "receipt.json").write_text('{"schema": "torchnet.receipt/1"}')
    assert main(["bench", "diff", *words]) == 2
    assert text in capsys.readouterr().err


def test_a_file_of_an_early_end_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = written(tmp_path / "old.json", healthy())
    new = written(
        tmp_path / "new.json", changed(healthy(), collectives=(), tcp=(), latency=(), complete=False)
    )
    assert main(["bench", "diff", old, new]) == 1
    out, err = capsys.readouterr()
    assert "Ended early: " in out
    assert "internal error" not in err
    assert main(["bench", "diff", new, old]) == 2


def test_two_files_with_nothing_in_common_are_no_good_news(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = written(tmp_path / "old.json", changed(healthy(sizes=(1 << 20,)), tcp=(), latency=()))
    new = written(tmp_path / "new.json", changed(healthy(sizes=(1 << 22,)), tcp=(), latency=()))
    assert main(["bench", "diff", old, new]) == 2
    out, err = capsys.readouterr()
    assert "Only in the old run:" in out
    assert "fix: run torchnet bench --json NEW" in err


def test_wrong_results_that_came_fast_are_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = healthy(seed=3, rate=2e9)
    old = written(tmp_path / "old.json", healthy(seed=1))
    new = written(
        tmp_path / "new.json",
        changed(
            fast,
            collectives=tuple(row.model_copy(update={"wrong": 3}) for row in fast.collectives),
            exit_code=1,
        ),
    )
    assert main(["bench", "diff", old, new]) == 1
    assert capsys.readouterr().out.startswith("Wrong results ")
