"""The keywords of `torchnet.launch`, and the error for each kind of failure."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.unit.receipts import receipt
from torchnet import api, errors
from torchnet.agent.events import Kind
from torchnet.config.settings import FIELDS
from torchnet.receipt.receipt_model import Receipt

KINDS: dict[str, tuple[type[BaseException], int]] = {
    "script": (errors.ScriptError, 42),
    "network": (errors.NetworkError, 4),
    "lost": (errors.LostWorkerError, 70),
    "timeout": (errors.JobTimeoutError, 124),
    "interrupted": (errors.JobStoppedError, 143),
    "internal": (errors.TorchnetError, 70),
    "usage": (errors.UsageError, 2),
}


def raised(
    monkeypatch: pytest.MonkeyPatch, code: int, failure: dict[str, Any] | None, *, left: bool = False
) -> BaseException:
    """What `torchnet.launch` raises for a job that ends with this receipt, or that is left before its end."""

    class Ends:
        def validate(self, *_: Any) -> None: ...

        def launch(self, _job: Any, _cwd: str, listener: Any) -> int:
            if left:
                return code
            listener({"event": "receipt", "receipt": receipt(exit_code=code, failure=failure)})
            return code

    monkeypatch.setattr(api, "runtime_of", lambda _job: Ends())
    with pytest.raises(BaseException) as caught:
        api.launch("x.py")
    return caught.value


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_of_failure_has_an_error_with_the_receipt(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    expected, code = KINDS[kind]
    failure = {"kind": kind, "rank": 1, "node": "node-1", "code": code, "text": "why\n  fix: how", "at": 1.0}
    error = raised(monkeypatch, code, failure)
    assert type(error) is expected
    assert isinstance(error, errors.TorchnetError)
    assert isinstance(error.receipt, Receipt)
    assert (error.exit_code, error.text, error.fix) == (code, "why", "how")
    if isinstance(error, errors.JobError):
        assert (error.rank, error.node) == (1, "node-1")


def test_a_missed_share_and_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(raised(monkeypatch, 5, None)) is errors.MinShareError
    failure = {"kind": "interrupted", "code": 130, "text": "stopped by SIGINT", "at": 1.0}
    assert type(raised(monkeypatch, 130, failure)) is KeyboardInterrupt


@pytest.mark.parametrize(("code", "error"), [(143, errors.JobStoppedError), (163, errors.TorchnetError)])
def test_a_job_that_is_left_before_its_end(
    monkeypatch: pytest.MonkeyPatch, code: int, error: type[BaseException]
) -> None:
    """163: a script's own exit code, of a failure before the signals."""
    assert type(raised(monkeypatch, code, None, left=True)) is error


def test_every_setting_has_a_keyword_of_its_own() -> None:
    names = api.keywords()
    assert {*names.values()} == {field.path for field in FIELDS}
    assert len({field.key for field in FIELDS}) == len(FIELDS)
    for name, path in {
        "rate": "network.rate",
        "fault": "network.faults",
        "compress": "tune.compress",
    }.items():
        assert names[name] == path


def test_a_removed_working_directory_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(errors.UsageError):
        api.launch("x.py")


def test_a_detached_run_has_no_receipt() -> None:
    settings: dict[str, Any] = {"on": "kubernetes", "image": "x:1", "network": "n", "detach": True}
    with pytest.raises(errors.UsageError, match="detach"):
        api.launch("x.py", **settings)


def test_the_handlers_of_further_signals_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handles:
        def validate(self, *_: Any) -> None: ...

        def launch(self, _job: Any, _cwd: str, listener: Any) -> int:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            listener({"event": "receipt", "receipt": receipt()})
            return 0

    def own(*_: Any) -> None: ...

    monkeypatch.setattr(api, "runtime_of", lambda _job: Handles())
    before = signal.signal(signal.SIGUSR1, own)
    try:
        api.launch("x.py", signals_to_handle="SIGUSR1")
        assert signal.getsignal(signal.SIGUSR1) is own
    finally:
        signal.signal(signal.SIGUSR1, before)
