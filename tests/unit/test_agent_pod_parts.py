"""What a pod's agent writes and reads: state, code, termination message, log lines, environment, memory, time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agents import spec
from torchnet.agent import exports, hosts, libuv, memory
from torchnet.agent.clock import Clock, process_age
from torchnet.agent.hello import Hello
from torchnet.agent.log import TextReporter
from torchnet.agent.report import Failure
from torchnet.agent.state import FILE, State, StateSource, put
from torchnet.agent.termination import LIMIT, Both, Termination
from torchnet.agent.unpack import unpack
from torchnet.errors import UsageError
from torchnet.network.sources import parse_source
from torchnet.network.static import StaticAddresses, pairs
from torchnet.network.status import StatusEntry
from torchnet.network.table import RailRow, Row, Table, fingerprint

TABLE = Table(
    tuple(
        Row(n, f"run-{n}", f"uid-{n}", (RailRow("net1", f"fd00::{n + 1}", 9000),), (f"10.0.0.{n + 1}",))
        for n in range(2)
    )
)
ENTRY = StatusEntry("ml/net", "net1", ("fd00::1",), mac="00:11:22:33:44:55", origin="--address-source")
STATE = State("run", 1, 2, "uid-1", "3", (ENTRY,), ("fd00::1",), TABLE)

# -- state -------------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    STATE.write(str(tmp_path))
    assert State.read(str(tmp_path)) == STATE
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    source = StateSource(STATE)
    assert (source.attachments(), source.rank0()) == ((ENTRY,), ("fd00::1",))


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"state\.json: No such file") as caught:
        State.read(str(tmp_path))
    assert "--phase prepare" in caught.value.fix
    STATE.write(str(tmp_path))
    whole = (tmp_path / FILE).read_text()
    value = json.loads(whole)
    others: list[Any] = [{**value, "format": 2}, {**value, "table": "x"}, {**value, "node_rank": "x"}, [], 5]
    others += [{k: v for k, v in value.items() if k != key} for key in value]
    for text in [whole[:-20], "", *(json.dumps(other) for other in others)]:
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UsageError, match="is no state of this version"):
            State.read(str(tmp_path))


def test_a_file_is_put_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    put(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(path, b"new")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_what_was_verified_is_told_by_rank_uid_addresses_and_mtu() -> None:
    def changed(**fields: Any) -> Table:
        row = TABLE.rows[1]
        return Table((TABLE.rows[0], Row(**{**vars(row), **fields})))

    same = fingerprint(TABLE)
    assert fingerprint(changed(eth0=("10.9.9.9",))) == same
    assert fingerprint(changed(name="other")) == same
    for fields in (
        {"uid": "x"},
        {"rails": (RailRow("net1", "fd00::9", 9000),)},
        {"rails": (RailRow("net1", "fd00::2", 1500),)},
        {"rails": (RailRow("net2", "fd00::2", 9000),)},
        {"node_rank": 5},
    ):
        assert fingerprint(changed(**fields)) != same


def test_a_copy_of_the_hosts_file_gets_the_peers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"127.0.0.1\tlocalhost\n\xff odd")
    for _ in range(2):
        hosts.write_copy(TABLE, tmp_path / "copy", str(own))
    lines = (tmp_path / "copy").read_bytes().splitlines()
    assert lines[:2] == [b"127.0.0.1\tlocalhost", b"\xff odd"]
    assert lines.count(b"fd00::2\trun-1") == 1
    assert b"10.0.0.2\trun-1-frontend" in lines
    assert own.read_bytes() == b"127.0.0.1\tlocalhost\n\xff odd"


def test_a_hello_says_who_may_come_in() -> None:
    told = spec(0, phase="work", start="2")
    hello = Hello.of(told, TABLE.rows[1], "known")
    assert Hello.read(json.loads(json.dumps(hello.message()))) == hello
    assert hello.objection(told, None, late=False) == ""
    other = spec(0, phase="work", start="3")
    assert hello.objection(other, None, late=False) == "it belongs to start attempt 2, this is 3"
    assert "--phase work" in hello.objection(spec(0, start="2"), None, late=False)
    assert hello.objection(spec(0, phase="prepare", start="2"), None, late=False) == ""


# -- code --------------------------------------------------------------------------------------------------------


def archive(path: Path, **files: tuple[bytes, int]) -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name, (data, mode) in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, data)
    return str(path)


def test_code_is_unpacked_with_its_modes_and_replaces_what_was_there(tmp_path: Path) -> None:
    made = {"a/run.sh": (b"#!/bin/sh\n", 0o100755), "train.py": (b"1", 0o100640), "plain": (b"", 0o100000)}
    source = archive(tmp_path / "code.zip", **made)
    target = tmp_path / "work"
    assert unpack(source, str(target)) == 3
    (target / "train.py").write_text("half of it")
    (target / "data").mkdir()  # what is mounted there stays
    (target / "data" / "kept").write_text("kept")
    assert unpack(source, str(target)) == 3
    assert (target / "train.py").read_bytes() == b"1"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in target.rglob("*") if p.is_file()}
    assert modes == {"run.sh": 0o755, "train.py": 0o640, "plain": 0o644, "kept": modes["kept"]}
    assert not list(target.rglob(".*"))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a/..", ".."])
def test_no_path_leads_outside(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "code.zip", **{"good": (b"1", 0), name: (b"x", 0o100644)})
    with pytest.raises(UsageError, match="outside of its folder"):
        unpack(source, str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "x").exists()


def test_links_devices_and_bombs_are_refused(tmp_path: Path) -> None:
    for mode in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        source = archive(tmp_path / "code.zip", link=(b"/etc", mode | 0o777))
        with pytest.raises(UsageError, match="no plain file"):
            unpack(source, str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "sub").symlink_to(tmp_path)  # from before
    with pytest.raises(UsageError, match="leads outside"):
        unpack(archive(tmp_path / "code.zip", **{"sub/x": (b"x", 0)}), str(tmp_path / "work"))
    assert not (tmp_path / "x").exists()
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(11):
            file.writestr(str(number), bytes(100 << 20))
    with pytest.raises(UsageError, match="unpacks to"):
        unpack(str(bomb), str(tmp_path / "work"))
    for data in (b"", b"PK\x03\x04 nonsense", bomb.read_bytes()[:-100]):
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(UsageError, match="no zip"):
            unpack(str(tmp_path / "bad.zip"), str(tmp_path / "work"))
    with pytest.raises(UsageError, match="No such file"):
        unpack(str(tmp_path / "none.zip"), str(tmp_path / "work"))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(st.sampled_from("ab./\\ é\u202e"), min_size=1, max_size=8), max_size=5))
def test_whatever_an_archive_is_called_it_stays_inside(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(folder / "code.zip", "w") as file:
        for name in dict.fromkeys(names):
            file.writestr(zipfile.ZipInfo(name), b"x")
    inside = folder / "deep" / "work"
    try:
        unpack(str(folder / "code.zip"), str(inside))
    except UsageError:
        pass
    assert {path.name for path in folder.iterdir()} <= {"code.zip", "deep"}
    assert {path.name for path in (folder / "deep").glob("*")} <= {"work"}


# -- termination message -----------------------------------------------------------------------------------------

RECEIPT: dict[str, Any] = {
    "node": "n",
    "node_rank": 0,
    "interfaces": {f"net{n}": {"role": "backend", "sent_bytes": 1, "received_bytes": 2} for n in range(8)},
    "peer_bytes": 5,
    "other_bytes": 0,
    "peers": [{"node": f"run-{n}", "interface": "net1", "sent_bytes": 1, "received_bytes": 1} for n in range(999)],
    "rdma_bytes": {},
    "proof": "measured",
    "codes": {str(n): n % 2 for n in range(64)},
    "flaps": [],
    "findings": [],
}  # fmt: skip
TEXT = st.text(max_size=5000) | st.sampled_from(["\0" * 4000, "é" * 3000, "😀" * 2000, '"\\' * 3000])


@settings(max_examples=80, deadline=None)
@given(text=TEXT, reason=TEXT, findings=st.lists(TEXT, max_size=6), node=st.text(max_size=300))
def test_a_message_always_fits_and_is_json(text: str, reason: str, findings: list[str], node: str) -> None:
    made = Termination(spec(0), "")
    made.send(Failure("script", text, 42, rank=3, node=node, at=1.5, tail=["x" * 9000]).event())
    made.send({"event": "worker_receipt", "receipt": {**RECEIPT, "findings": findings}})
    job = {"exit_code": 42, "reason": reason, "backend_share": 0.5, "proof": "measured", "ranks": [1] * 9999}
    made.send({"event": "receipt", "receipt": job})
    made.send({"event": "end", "code": 42})
    data = made.text().encode()
    assert len(data) <= LIMIT
    value = json.loads(data)
    assert list(value) == [
        "torchnet",
        "node",
        "node_rank",
        "phase",
        "code",
        "failure",
        "receipt",
        "job",
    ]
    assert (value["code"], value["failure"]["code"], value["failure"]["rank"]) == (42, 42, 3)
    assert list(value["failure"]) == ["kind", "text", "code", "rank", "node", "at"]
    assert text.startswith(value["failure"]["text"])
    assert value["receipt"] is None or "peers" not in value["receipt"]


def test_the_message_is_there_as_soon_as_something_fails(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    made = Termination(spec(0, phase="work"), str(path))
    made.send({"event": "phase", "phase": "join", "text": "1/2 joined", "node": 0})
    assert path.read_bytes() == b""
    made.send(Failure("interrupted", "stopped by SIGTERM " + "x" * 500, 143).event() | {"event": "told"})
    early = json.loads(path.read_bytes())
    assert (early["phase"], early["code"], early["failure"]["kind"]) == ("work", 143, "interrupted")
    made.send(Failure("lost", "lost run-1", 70).event())
    made.send({"event": "end", "code": 70})
    late = json.loads(path.read_bytes())  # the shorter one leaves nothing of the longer
    assert (late["code"], late["failure"]["text"]) == (70, "lost run-1")


def test_a_failure_that_a_restart_forgives_is_not_kept(tmp_path: Path) -> None:
    made = Termination(spec(0), str(tmp_path / "log"))
    made.send(Failure("script", "rank 1 exited with code 7", 7, rank=1).event() | {"restart": True})
    made.send({"event": "end", "code": 0})
    value = json.loads((tmp_path / "log").read_bytes())
    assert (value["code"], value["failure"]) == (0, None)


def test_no_place_for_the_message_is_no_failure(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "none" / "log"), "/dev/full"):
        Termination(spec(0), path).send({"event": "end", "code": 0})
    assert list(tmp_path.iterdir()) == []


# -- log ---------------------------------------------------------------------------------------------------------


class Written:
    """Lines as a reporter writes them, and the time that it sees."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.now = 10.0
        self.reporter = TextReporter(lambda stream, text: self.lines.append((stream, text)), lambda: self.now)

    def output(self, text: str, end: str = "\n", rank: int = 3, stream: str = "stdout") -> None:
        self.reporter.send(
            {"event": "output", "node": 0, "rank": rank, "stream": stream, "data": text, "end": end}
        )

    @property
    def stdout(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "stdout"]

    @property
    def stderr(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "stderr"]


def test_streams_are_told_apart_in_one_order() -> None:
    seen = Written()
    seen.output("out")
    seen.output("err", stream="stderr")
    seen.output("torchnet: receipt: {}")
    seen.output("\x1b[31mred\x1b[0m \u202e tab\t")
    assert seen.stdout == [
        "[3] out\n",
        "[3!] err\n",
        "[3] torchnet: receipt: {}\n",
        "[3] \\x1b[31mred\\x1b[0m \\u202e tab\\x09\n",
    ]


def test_a_line_that_comes_in_pieces_is_one_line() -> None:
    seen = Written()
    seen.output("Continue? ", "")
    seen.output("", "", rank=4)
    seen.output("yes", "", stream="stderr")
    seen.output("[y] ", "")
    seen.output("no")
    assert seen.stdout == ["[3] Continue? [y] no\n"]
    seen.reporter.flush()
    assert seen.stdout[1:] == ["[3!] yes\n"]
    seen.output("x" * 40_000)
    assert [len(line) for line in seen.stdout[2:]] == [16389, 16389, 7237]
    assert all(line.endswith("\n") for line in seen.stdout)


def test_a_progress_bar_does_not_fill_the_log() -> None:
    seen = Written()
    for step in range(101):
        seen.output(f"{step}%", "\r", stream="stderr")
        seen.now += 0.1
    seen.output("", stream="stderr")
    assert seen.stdout[0] == "[3!] 0%\n"
    assert seen.stdout[-1] == "[3!] 100%\n"
    assert 10 <= len(seen.stdout) <= 13
    seen.output("next")
    assert seen.stdout[-1] == "[3] next\n"


def test_what_torchnet_says_cannot_be_forged_by_what_it_quotes() -> None:
    seen = Written()
    seen.reporter.send(Failure("script", "rank 1: ValueError\nreceipt: {}\x1b[2J", 1).event())
    seen.reporter.send(
        {**Failure("script", "rank 1: ValueError\nreceipt: {}\x1b[2J", 1).event(), "event": "told"}
    )
    assert "".join(seen.stderr) == "torchnet: rank 1: ValueError\ntorchnet:   receipt: {}\\x1b[2J\n"


def test_events_for_people() -> None:
    seen = Written()
    seen.reporter.send({"event": "phase", "node": 0, "phase": "join", "text": "1/2 joined"})
    seen.reporter.send({"event": "time", "phase": "join", "own_s": 0.0123, "waited_s": 1.5})
    seen.reporter.send({"event": "time", "phase": "start", "own_s": 0.1, "waited_s": 0.0})
    seen.reporter.send({"event": "own_time", "own_s": 0.3117})
    seen.reporter.send({"event": "receipt", "receipt": {"a": "\x1b\n"}})
    seen.reporter.send({"event": "invented"})
    assert "".join(seen.stderr).splitlines() == [
        "torchnet: join: 1/2 joined",
        "torchnet: join: 0.012 s, waited 1.500 s",
        "torchnet: start: 0.100 s",
        "torchnet: torchnet's own time: 0.312 s",
        'torchnet: receipt: {"a":"\\u001b\\n"}',
    ]


def test_several_reporters_are_one() -> None:
    one, two = Written(), Written()
    both = Both(one.reporter, two.reporter)
    both.send({"event": "notice", "node": 0, "level": "info", "text": "hear"})
    assert one.stderr == two.stderr == ["torchnet: hear\n"]
    assert both.pending == 0


# -- environment for another launcher ----------------------------------------------------------------------------


VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=4))
def test_a_shell_takes_over_the_very_values(values: dict[str, str]) -> None:
    values = {f"T_{name}": value for name, value in values.items()}
    text = exports.lines(values)
    good = {name: value for name, value in values.items() if f"export {name}=" in text}
    shown = " ".join(f'"${{{name}}}"' for name in good)
    done = subprocess.run(
        ["sh", "-c", f'eval "$0"; printf "%s\\0" {shown}', text], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\0")[:-1] == (list(good.values()) or [""])
    assert done.stderr == ""


def test_names_that_are_none_are_left_out() -> None:
    assert exports.lines({"A": "it's", "B-C": "x", "D=$(reboot)": "x", "": "x"}) == "export A='it'\\''s'\n"


# -- addresses that are given ------------------------------------------------------------------------------------


def test_static_addresses() -> None:
    source = StaticAddresses("static:net1=FD00::1/64,net2=10.0.0.1/24", ("[fd00::9]",), ("ml/a@net1",))
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
        "net1 stands twice",
        '"x" for net2',
        "an interface name is empty",
        '"fe80::1" for net4',
        "net5",
        "net6",
    ):
        assert part in text
    assert "static:net1=ADDRESS/LEN" in caught.value.fix


# -- memory, time, libuv -----------------------------------------------------------------------------------------


def test_kills_for_memory_are_counted_where_the_group_is(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/kubepods/pod1\n")
    assert memory.kills(str(tmp_path), str(own)) is None
    group = tmp_path / "kubepods" / "pod1"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n")
    (group / "memory.max").write_text("536870912\n")
    assert memory.kills(str(tmp_path), str(own)) == 2
    assert memory.limit(str(tmp_path), str(own)) == 512 << 20
    (group / "memory.max").write_text("max\n")
    assert memory.limit(str(tmp_path), str(own)) is None
    first = tmp_path / "memory" / "pod2"
    first.mkdir(parents=True)
    own.write_text("4:cpu,memory:/pod2\n0::/\n")
    (first / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert memory.kills(str(tmp_path), str(own)) == 3
    assert memory.kills(str(tmp_path / "none"), str(tmp_path / "none")) is None


def test_a_clock_tells_waiting_from_work() -> None:
    events: list[dict[str, Any]] = []
    clock = Clock(events.append, age=0.5)
    clock.own()
    clock.done("start")
    time.sleep(0.2)
    clock.waited()
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    clock.own()
    clock.done("join")
    clock.total()
    clock.done("later")
    clock.total()
    assert [event.get("phase") for event in events] == ["start", "join", None]
    assert events[0]["own_s"] == pytest.approx(0.5, abs=0.1)
    assert 0.19 < events[1]["waited_s"] < 0.4
    assert 0.1 <= events[1]["own_s"] < 0.5
    assert events[2]["own_s"] == events[0]["own_s"] + events[1]["own_s"]


def test_the_start_of_python_counts() -> None:
    code = "from torchnet.agent.clock import process_age; print(process_age())"
    began = time.monotonic()
    words = ["sh", "-c", f"sleep 0.3; exec python3 -c '{code}'"]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    assert 0.3 <= float(done.stdout) <= time.monotonic() - began + 0.02
    assert process_age() > 0


def test_libuv_is_looked_for_where_constants_stand(tmp_path: Path) -> None:
    name = b"LibUVStoreDaemon"
    for inside, answer in ((True, True), (False, False)):
        path = tmp_path / f"lib-{inside}.so"
        path.write_bytes(elf(b"..." + name if inside else b"nothing") + name)
        assert libuv.contains(str(path)) is answer
    (tmp_path / "short.so").write_bytes(b"\x7fELF\x02\x01" + bytes(20) + name)
    assert libuv.contains(str(tmp_path / "short.so")) is True  # all of it, where no section is found
    (tmp_path / "empty.so").touch()
    assert libuv.contains(str(tmp_path / "empty.so")) is None


def elf(constants: bytes) -> bytes:
    """A little library: its section .rodata, and the names of sections."""
    import struct

    names = b"\0.rodata\0.shstrtab\0"
    body = constants + names
    table = 64 + len(body)
    head = (
        b"\x7fELF\x02\x01" + bytes(34) + struct.pack("<Q", table) + bytes(10) + struct.pack("<HHH", 64, 3, 2)
    )
    sections = bytes(64)
    for label, offset, length in ((1, 64, len(constants)), (9, 64 + len(constants), len(names))):
        sections += struct.pack("<IIQQQQ", label, 1, 0, 0, offset, length) + bytes(24)
    return head + body + sections
