"""The environment for another launcher, and addresses that are given."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.agent import command_line, env_command
from torchnet.errors import UsageError
from torchnet.network.address_sources import StaticAddresses, pairs, parse_source
from torchnet.network.attachment import NetworkAttachment

VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=4))
def test_a_shell_takes_over_the_very_values(values: dict[str, str]) -> None:
    values = {f"T_{name}": value for name, value in values.items()}
    text = env_command.lines(values)
    good = {name: value for name, value in values.items() if f"export {name}=" in text}
    shown = " ".join(f'"${{{name}}}"' for name in good)
    words = ["sh", "-c", f'eval "$0"; printf "%s\\0" {shown}', text]
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == (list(good.values()) or [""])
    assert done.stderr == b""


NUMBERS = {"NNODES": "nnodes", "NODE_RANK": "node_rank", "NPROC_PER_NODE": "nproc_per_node"}


@pytest.mark.parametrize("variable", [*(f"TORCHNET_{name}" for name in NUMBERS), "JOB_COMPLETION_INDEX"])
@pytest.mark.parametrize("value", ["4 ", "four", "-1", "²", "1e3", "9" * 5000])
def test_a_number_of_the_environment_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as caught:
        command_line.parse(["x.py"])
    assert str(caught.value).startswith(f"{variable}={value!r} is not a number of at least ")


def test_numbers_come_from_the_flags_the_environment_or_are_the_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def numbers(*words: str) -> list[int]:
        options = command_line.parse(words)
        return [getattr(options, name) for name in NUMBERS.values()]

    for name in (*(f"TORCHNET_{name}" for name in NUMBERS), "JOB_COMPLETION_INDEX"):
        monkeypatch.setenv(name, "")
    assert numbers() == [1, 0, 1]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    monkeypatch.setenv("TORCHNET_NNODES", "9")
    assert numbers() == [9, 3, 1]
    monkeypatch.setenv("TORCHNET_NODE_RANK", "0")
    monkeypatch.setenv("TORCHNET_NPROC_PER_NODE", "0")
    assert numbers("--nproc-per-node", "2") == [9, 0, 2]  # what a flag says is not looked up
    with pytest.raises(UsageError, match="TORCHNET_NPROC_PER_NODE='0' .*at least 1"):
        numbers()


def test_names_that_are_none_are_left_out() -> None:
    assert (
        env_command.lines({"A": "it's", "B-C": "x", "D=$(reboot)": "x", "": "x"}) == "export A='it'\\''s'\n"
    )


def test_static_addresses() -> None:
    source = StaticAddresses(
        "static:net1=FD00::1/64,net2=10.0.0.1/24", ("[fd00::9]",), (NetworkAttachment.parse("ml/a@net1"),)
    )
    assert [(e.name, e.interface, e.ips, e.origin) for e in source.attachments()] == [
        ("ml/a", "net1", ("fd00::1",), "--address-source"),
        ("static:net2", "net2", ("10.0.0.1",), "--address-source"),
    ]
    assert source.rank0() == ("fd00::9",)
    assert parse_source("static:net1=fd00::1/64").kind == "static"


def test_every_wrong_static_address_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        pairs(
            "static:net1=fd00::1/64,net1=fd00::2/64,net2=x,=fd00::3,net4=fe80::1,net5=fd00::1/x,net6=10.0.0.1/33"
        )
    text = str(caught.value)
    for part in (
        "net1 is given twice",
        '"x" for net2',
        "an interface name is empty",
        '"fe80::1" for net4',
        "net5",
        "net6",
    ):
        assert part in text
    assert "static:net1=ADDRESS/LEN" in caught.value.fix
