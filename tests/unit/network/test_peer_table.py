"""The job's table: the same bytes, small, bounded; and what is wrong with it, all at once."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
import uuid
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.agent import framed_socket
from torchnet.constants import MAX_RAILS
from torchnet.errors import NetworkError
from torchnet.network.network_status import canonical
from torchnet.network.peer_table import (
    MAX_ROWS,
    MAX_SIZE,
    PeerRail,
    PeerRow,
    PeerTable,
    check,
    decode,
    encode,
    owners,
    refusal,
)

ADDRESSES = st.ip_addresses().map(lambda ip: canonical(str(ip)) or "")
RAILS = st.builds(PeerRail, st.text(max_size=15), ADDRESSES, st.integers(0, 65535))
ROWS = st.builds(
    PeerRow,
    node_rank=st.integers(0, 9999),
    name=st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,20}[A-Za-z0-9_])?", fullmatch=True),
    uid=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    rails=st.lists(RAILS, max_size=MAX_RAILS).map(tuple),
    eth0=st.lists(ADDRESSES, max_size=2).map(tuple),
)


def job(nnodes: int, rails: int = 1) -> PeerTable:
    """As on a cluster: chance in the UIDs, order in the addresses."""
    chance = random.Random(nnodes)
    return PeerTable(
        tuple(
            PeerRow(
                rank,
                f"train-x7k2p-worker-{rank}",
                str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                tuple(
                    PeerRail(f"net{r + 1}", f"fcbb:0:800:{0xFFFF - r:x}::{rank + 1:x}", 9000)
                    for r in range(rails)
                ),
                (f"10.244.{rank // 250}.{rank % 250 + 1}",),
            )
            for rank in range(nnodes)
        )
    )


def changed(table: PeerTable, rank: int, **changes: Any) -> PeerTable:
    return PeerTable(tuple(replace(row, **changes) if row.node_rank == rank else row for row in table.rows))


def rail(address: str, mtu: int = 9000, interface: str = "net1") -> tuple[PeerRail, ...]:
    return (PeerRail(interface, address, mtu),)


@given(st.lists(ROWS, max_size=5).map(lambda rows: PeerTable(tuple(rows))))
def test_round_trip(table: PeerTable) -> None:
    data = encode(table)
    assert decode(data) == table
    assert encode(decode(data)) == data


@given(st.binary())
def test_decode_is_total(data: bytes) -> None:
    for form in (data, zlib.compress(data)):
        with pytest.raises(NetworkError):
            decode(form)


CELLS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | ADDRESSES
)
COLUMNS = ["format", "kinds", "kind", "rank", "name", "uid", "address", "eth0"]


@given(
    st.sampled_from(COLUMNS),
    CELLS | st.lists(CELLS | st.lists(CELLS | st.lists(CELLS), max_size=2), max_size=3),
)
def test_decode_is_total_on_other_columns(column: str, value: Any) -> None:
    """One column of a good table replaced: an error, or a table that is typed (it encodes and decodes again)."""
    good = json.loads(zlib.decompress(encode(job(2))))
    try:
        table = decode(zlib.compress(json.dumps({**good, column: value}).encode()))
    except NetworkError:
        return
    assert decode(encode(table)) == table
    check(table)


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(b" " * (8 * MAX_SIZE), 9)
    assert len(bomb) < MAX_SIZE / 100
    tracemalloc.start()
    try:
        with pytest.raises(NetworkError, match="larger than"):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("rank", [0, 1.0], "node rank"),
        ("rank", [0, True], "node rank"),
        ("rank", [0, 10_000], "node rank"),
        ("rank", [0], "unequal length"),
        ("kind", [0, 1], "kind"),
        ("uid", ["a", None], "UID"),
        ("uid", ["a", "x" * 254], "UID"),
        ("address", [["fcbb::1"], []], "different number of addresses"),
        ("address", [["fcbb::1"], ["fcbb::2", "fcbb::3"]], "different number of addresses"),
        ("address", [["fcbb::1"], ["$(reboot)"]], "invalid IP address"),
        ("eth0", [["a"], []], "invalid IP address"),
        ("kinds", [[["net1", -1]]], "MTU"),
        ("kinds", [[["net1" * 4, 9000]]], "interface"),
        ("kinds", None, "no list of kinds"),
        ("format", 2, "unknown format"),
    ],
)
def test_wrong_columns(column: str, value: Any, said: str) -> None:
    good = json.loads(zlib.decompress(encode(job(2))))
    with pytest.raises(NetworkError, match=said):
        decode(zlib.compress(json.dumps({**good, column: value}).encode()))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (encode(job(2))[:-1], "truncated"),
        (encode(job(2)) + b"x", "extra bytes"),
        (b"", "truncated"),
        (b"garbage", "not a zlib stream"),
        (zlib.compress(b"[" * 100_000), "nested too deep"),
        (zlib.compress(b"{}"), "unknown format"),
        (zlib.compress(b"\xff"), "UTF-8"),
    ],
)
def test_wrong_bytes(form: bytes, said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        decode(form)


@pytest.mark.parametrize("name", ["", "a b", "a\n127.0.0.1 b", "a#b", "-a", "a.", "x" * 254, "\u202e", "a\0"])
def test_names_that_cannot_stand_in_a_hosts_file(name: str) -> None:
    with pytest.raises(NetworkError, match="hosts file"):
        decode(encode(changed(job(2), 1, name=name)))


def test_too_many_rows_and_rails() -> None:
    with pytest.raises(NetworkError, match="10,001 rows"):
        decode(encode(PeerTable((replace(job(1).rows[0], rails=()),) * 10_001)))
    with pytest.raises(NetworkError, match=f"{MAX_RAILS + 1} rails.* {MAX_RAILS}$|{MAX_RAILS + 1} rails"):
        decode(encode(job(1, MAX_RAILS + 1)))


def test_size() -> None:
    assert len(encode(job(1000))) / 1000 < 36
    assert len(encode(job(1000, 8))) / 1000 < 64


def test_10000_rows() -> None:
    # On 2 cores: encode 0.1 s, decode 0.1 s, check 0.1 s (with 8 rails 0.4 s each). Linear, so no timed test.
    table = job(10_000)
    assert decode(encode(table)) == table
    assert check(table) == []


@pytest.mark.large
def test_the_largest_job_with_the_longest_names_and_addresses_is_read() -> None:
    """What a launch accepts must start: by the table's own bounds, and in one message of the agents."""
    chance = random.Random(1)

    def longest() -> str:
        return ":".join(f"{chance.randrange(0x1000, 0x10000):x}" for _ in range(8))

    table = PeerTable(
        tuple(
            replace(
                row,
                name=row.name.rjust(63, "x"),
                rails=tuple(replace(rail, address=longest()) for rail in row.rails),
                eth0=("100.100.100.100", longest()),
            )
            for row in job(MAX_ROWS, MAX_RAILS).rows
        )
    )
    data = encode(table)
    assert decode(data) == table
    assert len(zlib.decompress(data)) < 0.8 * MAX_SIZE
    assert len(base64.b64encode(data)) < 0.8 * framed_socket.LIMIT


def test_a_good_table() -> None:
    assert check(job(4, 2)) == []
    assert check(PeerTable(())) == []


def test_duplicate_address_names_both_workers() -> None:
    [problem] = check(changed(job(3), 2, rails=job(3).rows[0].rails))
    assert problem.kind == "duplicate"
    assert problem.nodes == ("train-x7k2p-worker-0", "train-x7k2p-worker-2")
    assert (
        "fcbb:0:800:ffff::1 belongs to train-x7k2p-worker-0 (node rank 0 net1), train-x7k2p-worker-2"
        in problem.text
    )
    assert problem.fix


def test_duplicate_across_rails() -> None:
    rails = job(2, 2).rows[1].rails
    [problem] = check(
        changed(job(2, 2), 1, rails=(replace(rails[0], address="fcbb:0:800:fffe::1"), rails[1]))
    )
    assert problem.nodes == ("train-x7k2p-worker-0", "train-x7k2p-worker-1")
    [same] = check(PeerTable((replace(job(1).rows[0], rails=rail("::5") + rail("::5", interface="net2")),)))
    assert same.nodes == ("train-x7k2p-worker-0",)


def test_loopback_is_shared() -> None:
    table = PeerTable(tuple(replace(row, rails=rail("127.0.0.1", 65536, "lo")) for row in job(3).rows))
    assert check(table) == []


def test_duplicate_names_and_uids() -> None:
    first = job(3).rows[0]
    assert [(p.kind, p.nodes) for p in check(changed(job(3), 1, name=first.name))] == [
        ("duplicate", (first.name,))
    ]
    [problem] = check(changed(job(3), 1, uid=first.uid))
    assert problem.nodes == (first.name, "train-x7k2p-worker-1")
    assert [p.text.split()[0] for p in check(changed(job(3), 1, name=first.name, uid=first.uid))] == ["name"]


def test_ranks() -> None:
    [problem] = check(changed(job(3), 2, node_rank=1))
    assert (problem.kind, problem.nodes) == ("rank", ("train-x7k2p-worker-1", "train-x7k2p-worker-2"))
    [gap] = check(changed(job(3), 2, node_rank=7))
    assert "no worker has node rank 2" in gap.text


def test_mixed_families() -> None:
    [problem] = check(changed(job(4), 2, rails=rail("10.9.0.3")))
    assert problem.kind == "family"
    assert problem.text == (
        "IPv4 on train-x7k2p-worker-2, IPv6 on train-x7k2p-worker-0, train-x7k2p-worker-1, train-x7k2p-worker-3"
    )
    assert "--family" in problem.fix
    mixed = check(changed(job(2, 2), 1, rails=rail("fcbb::9") + rail("10.9.0.3", interface="net2")))
    assert [p.kind for p in mixed] == ["family"]


def test_unequal_mtus_name_both_values() -> None:
    [problem] = check(
        changed(job(4, 2), 3, rails=(job(4, 2).rows[3].rails[0], *rail("fcbb::4", 1500, "net2")))
    )
    assert problem.kind == "mtu"
    assert problem.text.startswith("rail 2 (net2): MTU 1500 on train-x7k2p-worker-3, MTU 9000 on ")
    assert problem.nodes == ("train-x7k2p-worker-3", "train-x7k2p-worker-0")


def test_number_of_rails() -> None:
    [problem] = check(changed(job(3, 2), 1, rails=job(3).rows[1].rails))
    assert problem.kind == "rails"
    assert problem.text.startswith("1 rail on train-x7k2p-worker-1, 2 rails on ")


def test_all_problems_at_once() -> None:
    table = changed(job(5), 1, rails=rail("fcbb:0:800:ffff::1", 1500))
    table = changed(table, 2, rails=rail("10.9.0.3"))
    table = changed(table, 3, rails=())
    problems = check(table)
    assert [problem.kind for problem in problems] == ["duplicate", "rails", "family", "mtu"]
    error = refusal(problems)
    assert error.exit_code == 4
    assert all(problem.text in error.text and problem.fix in error.fix for problem in problems)


def test_a_refusal_stays_short() -> None:
    table = PeerTable(
        tuple(replace(row, rails=rail(f"fcbb::{row.node_rank // 2 + 1:x}")) for row in job(10_000).rows)
    )
    problems = check(table)
    assert len(problems) == 5000
    assert "and 4990 more" in refusal(problems).text
    assert len(str(refusal(problems))) < 3000
    one = PeerTable(tuple(replace(row, rails=rail("fcbb::1")) for row in job(10_000).rows))
    assert len(check(one)[0].text) < 400
    assert len(check(one)[0].nodes) == 10_000


def test_an_address_that_several_workers_have_beside_their_rails_is_nobodys() -> None:
    rails = [(PeerRail("net1", f"fd00::{n}", 1500),) for n in range(3)]
    beside = [("10.0.0.1", "172.17.0.1"), ("10.0.0.2", "172.17.0.1", "10.0.0.2"), ("172.17.0.1", "fd00::1")]
    rows = tuple(PeerRow(n, f"w{n}", f"u{n}", rails[n], beside[n]) for n in range(3))
    assert owners(PeerTable(rows)) == {
        "10.0.0.1": 0,
        "10.0.0.2": 1,
        "172.17.0.1": None,
        **{f"fd00::{n}": n for n in range(3)},
    }
