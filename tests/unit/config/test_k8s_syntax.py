"""A job on Kubernetes: names made of the run's, fixed addresses, and the grammars of single values."""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.asked_kubernetes import asked, wrong
from torchnet.config import k8s_syntax, k8s_values, volume_syntax
from torchnet.k8s.objects.rank0_service import service_name

# -- names that are made of the run's


@pytest.mark.parametrize(
    ("form", "nnodes", "longest"), [("job", 4, 61), ("job", 10_000, 58), ("pods", 11, 60), ("jobset", 4, 51)]
)
def test_a_workers_hostname_has_room(tmp_path: Path, form: str, nnodes: int, longest: int) -> None:
    flags: dict[str, object] = {"kubernetes.kind": form, "nnodes": str(nnodes)}
    asked(tmp_path, flags | {"run_id": "a" * longest})
    (problem,) = wrong(tmp_path, flags | {"run_id": "a" * (longest + 1)}).problems
    assert problem.path == "run_id"
    assert str(longest) in problem.what


def test_a_jobset_cannot_begin_with_a_digit(tmp_path: Path) -> None:
    asked(tmp_path, {"run_id": "1a"})
    assert wrong(tmp_path, {"run_id": "1a", "kubernetes.kind": "jobset"}).problems[0].path == "run_id"


@pytest.mark.parametrize("nnodes", ["4", "1"])
def test_a_name_that_begins_with_a_digit_has_room_for_what_the_services_name_adds(
    tmp_path: Path, nnodes: str
) -> None:
    asked(tmp_path, {"run_id": "1" * 59, "nnodes": nnodes})
    (problem,) = wrong(tmp_path, {"run_id": "1" * 60, "nnodes": nnodes}).problems
    assert (problem.path, "59" in problem.what) == ("run_id", True)
    assert len(service_name("1" * 59)) == 63


# -- addresses


RANGE = "fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64"


def test_fixed_addresses_need_pods_and_say_so(tmp_path: Path) -> None:
    assert asked(tmp_path, {"kubernetes.static_ips": [RANGE]}).job.kubernetes.form == "pods"
    for form in ("job", "jobset"):
        (problem,) = wrong(tmp_path, {"kubernetes.static_ips": [RANGE], "kubernetes.kind": form}).problems
        assert "--kind pods" in problem.what


def test_there_is_a_range_for_each_rail_and_an_address_for_each_worker(tmp_path: Path) -> None:
    two: dict[str, object] = {"network.networks": ["a*2"], "nnodes": "3"}
    asked(tmp_path, two | {"kubernetes.static_ips": [RANGE, "10.0.0.1/24,10.0.0.2/24,10.0.0.9/24"]})
    assert "2" in wrong(tmp_path, two | {"kubernetes.static_ips": [RANGE]}).problems[0].what
    assert "two rails" in str(wrong(tmp_path, two | {"kubernetes.static_ips": [RANGE, RANGE]}))
    few = wrong(tmp_path, {"nnodes": "3", "kubernetes.static_ips": ["10.0.0.1-10.0.0.2/24"]})
    assert re.search("2 addresses .*3 workers", str(few))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "10.0.0.1-10.0.0.9",
            "10.0.0.9-10.0.0.1/24",
            "10.0.0.1-10.0.1.9/24",
            "10.0.0.1-fcbb::1/24",
            "x-y/24",
            "10.0.0.1",
        ),
        *(
            "10.0.0.1/24,10.0.0.1/24",
            "10.0.0.1/24,x/24",
            "10.0.0.1-10.0.0.9/33",
            "",
            ",",
            "fcbb::1/64,fcbb::1",
        ),
    ],
)
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        k8s_values.parse_addresses(text, 2)


@given(st.integers(0, 2**32 - 2**17), st.integers(1, 200), st.sampled_from([16, 20, 24]))
def test_a_range_gives_addresses_in_order(first: int, count: int, length: int) -> None:
    start = ipaddress.IPv4Address(first)
    network = ipaddress.ip_network((start, length), strict=False)
    last = min(first + count - 1, int(network.broadcast_address))
    found = k8s_values.parse_addresses(f"{start}-{ipaddress.IPv4Address(last)}/{length}", last - first + 1)
    assert [int(ipaddress.ip_interface(one).ip) for one in found] == list(range(first, last + 1))
    assert {ipaddress.ip_interface(one).network for one in found} == {network}


# -- grammars


@given(st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti|)", fullmatch=True))
def test_a_quantity_is_exact(text: str) -> None:
    match = re.fullmatch(r"([0-9.]+)(.*)", text)
    assert match
    units: dict[str, Any] = {"": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    units |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    assert k8s_syntax.amount(text) == Fraction(match[1]) * units[match[2]]


ANY = st.text(max_size=80) | st.text("aA0-_./*=:", max_size=80)


@settings(deadline=None)
@given(ANY)
def test_whatever_is_taken_is_what_kubernetes_takes(text: str) -> None:
    label = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
    subdomain = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
    for parse, taken in (
        (k8s_syntax.parse_label_value, bool(label.fullmatch(text)) and len(text) <= 63),
        (
            k8s_syntax.parse_subdomain,
            bool(subdomain.fullmatch(text)) and max(map(len, text.split("."))) <= 63,
        ),
    ):
        try:
            assert parse(text) == text
        except ValueError:
            assert not taken
        else:
            assert taken


@settings(deadline=None)
@given(ANY)
def test_no_text_is_more_than_refused(text: str) -> None:
    for parse in (
        *(
            k8s_values.parse_network,
            volume_syntax.parse_volume,
            k8s_values.parse_secret,
            k8s_values.parse_toleration,
            k8s_values.parse_code,
        ),
        *(
            k8s_syntax.parse_qualified,
            k8s_syntax.parse_quantity,
            k8s_syntax.parse_image,
            k8s_syntax.parse_registry,
            k8s_syntax.parse_mount_path,
        ),
    ):
        try:
            parse(text)
        except ValueError:
            pass
