"""What a worker's processes get of the settings that come as variables, however these were written."""

from __future__ import annotations

import pytest

from tests.unit.agents import rails, spec
from torchnet.agent.process_env import ProcessEnvironment


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
