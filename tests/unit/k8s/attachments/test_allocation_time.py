"""A launch says before its start that Whereabouts will take minutes."""

from __future__ import annotations

from torchnet.k8s.attachments.allocation_time import assignment_line


def test_that_many_addresses_take_minutes_is_told() -> None:
    assert assignment_line(200) == ""
    told = assignment_line(1000)
    assert "1000 addresses take about 9 min" in told
    assert "--slice" in told
    assert "--static-ips with an attachment of --ipam static" in told
