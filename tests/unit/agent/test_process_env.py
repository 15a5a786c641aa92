"""What a worker's processes get of the settings that come as variables, however these were written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.agents import rails, spec
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.linux import rtnetlink
from torchnet.network.interface_selection import Address, Interface


@pytest.mark.parametrize(
    ("text", "devices"),
    [("", 1), ("1", 1), ("3", 3), ("8", 8), ("0", 1), ("9", 8), ("999999999", 8), ("9" * 5000, 1), ("-2", 1),
     ("2.5", 1), ("²", 1), ("two", 1)],
)  # fmt: skip
def test_gloo_has_from_one_to_eight_devices_on_a_rail(
    text: str, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    made = ProcessEnvironment(
        spec(entry="program", env={"TORCHNET_TUNE_GLOO_DEVICES": text}), "fd00::1", rails(), 29501, 0
    )
    assert made.given(0)["GLOO_SOCKET_IFNAME"] == ",".join([rails()[0].interface] * devices)


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (("4", "6"), None, ["4", "6"]),
        (None, "5,7", ["5", "7"]),
        (None, None, ["0", "1"]),
        (None, "3", ["3", "-1"]),
        ((), None, ["-1", "-1"]),
    ],
)
def test_with_a_virtual_local_rank_each_process_sees_its_gpu_as_the_first(
    gpus: tuple[str, ...] | None, visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    fields: dict[str, Any] = {"rdzv_id": "my job", "role": "r", "signals": ("SIGUSR1",)}
    one = spec(entry="program", gpus=gpus, virtual_local_rank=True, **fields)
    made = ProcessEnvironment(one, "fd00::1", rails(), 29501, 0)
    found = [made.of(local, "") for local in (0, 1)]
    assert [env["LOCAL_RANK"] for env in found] == ["0", "0"]
    assert [env["RANK"] for env in found] == ["0", "1"]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == expected
    assert (found[0]["TORCHELASTIC_RUN_ID"], found[0]["ROLE_NAME"]) == ("my job", "r")
    assert found[0]["TORCHELASTIC_SIGNALS_TO_HANDLE"] == "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@pytest.mark.parametrize(
    ("runtime", "own_console", "warned"),
    [("local", True, False), ("agent", True, False), ("agent", False, True), ("kubernetes", False, True)],
)
def test_the_callers_error_file_is_replaced_unless_the_launcher_writes_it(
    runtime: Any, own_console: bool, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/tmp/error.json")
    one = spec(entry="program", runtime=runtime, own_console=own_console)
    found = ProcessEnvironment(one, "fd00::1", rails(), 29501, 0).warnings()
    assert any("TORCHELASTIC_ERROR_FILE" in text for text in found) == warned


@pytest.mark.parametrize(
    ("variable", "value", "is_same"),
    [
        ("NCCL_SOCKET_IFNAME", "net1", True),
        ("NCCL_SOCKET_IFNAME", "net", True),
        ("NCCL_SOCKET_IFNAME", "^eth,lo", True),
        ("NCCL_SOCKET_IFNAME", "^eth", False),  # NCCL may use lo
        ("NCCL_SOCKET_IFNAME", "net1,eth0", False),
        ("NCCL_SOCKET_IFNAME", "eth0", False),
        ("GLOO_SOCKET_IFNAME", "net1,net1", True),
        ("GLOO_SOCKET_IFNAME", "net1,eth0", False),
        ("GLOO_SOCKET_IFNAME", "net", False),
        ("GLOO_SOCKET_IFNAME", "=net1", False),
    ],
)
def test_a_list_that_admits_exactly_the_rails_is_no_reason_to_warn(
    variable: str, value: str, is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    addresses = {"lo": "::1", "eth0": "fd01::1", "net1": "fd00:0::1"}
    present = {
        name: Interface(name, 1, "", 1500, True, True, (Address(ip, 64, 6),))
        for name, ip in addresses.items()
    }
    present["net2"] = Interface("net2", 9, "", 1500, True, True)
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: present)
    made = ProcessEnvironment(spec(entry="program", env={variable: value}), "fd00::1", rails(), 29501, 0)
    assert made.of(0, "")[variable] == value
    assert any(variable in text for text in made.warnings()) != is_same
