"""The user of a pod: what --run-as and --fs-group mean together."""

from __future__ import annotations

import pytest

from torchnet.config.pod_user import DEFAULT_USER, PodUser, parse_id, parse_run_as, pod_user


@pytest.mark.parametrize(
    ("run_as", "fs_group", "expected"),
    [
        (None, None, PodUser(1000, 1000, 1000)),
        (None, 5, PodUser(1000, 1000, 5)),
        # The group is the user's number, also of the volumes: within OpenShift's range of groups, too.
        ("1000700000", None, PodUser(1000700000, 1000700000, 1000700000)),
        ("5001:100", None, PodUser(5001, 100, 100)),
        ("5001:0", 7, PodUser(5001, 0, 7)),
        ("5001:0", None, PodUser(5001, 0, 0)),
        ("namespace", None, PodUser(None, None, None)),
        ("namespace", 7, PodUser(None, None, 7)),
        ("0", None, PodUser(0, 0, None)),
        ("0:5", None, PodUser(0, 5, None)),
        ("0", 0, PodUser(0, 0, 0)),
    ],
)
def test_the_ids_of_a_pod(run_as: str | None, fs_group: int | None, expected: PodUser) -> None:
    assert pod_user(run_as, fs_group) == expected


def test_only_uid_0_is_root() -> None:
    assert [pod_user(text, None).is_root for text in ("0", "0:5", "5:0", "namespace", None)] == [
        *(True, True, False, False, False)
    ]
    assert not DEFAULT_USER.is_root


@pytest.mark.parametrize(
    ("value", "text"), [(" 7 ", "7"), (7, "7"), ("007:08", "7:8"), ("namespace", "namespace")]
)
def test_a_user_in_its_shortest_form(value: object, text: str) -> None:
    assert parse_run_as(value) == text


@pytest.mark.parametrize(
    "value", ["", "a", "-1", "1:", ":1", "1:2:3", "1 2", True, 1.5, None, [1], "2147483648", "٣"]
)
def test_what_is_no_user(value: object) -> None:
    with pytest.raises(ValueError, match=r"UID\[:GID\]|has a part that is"):
        parse_run_as(value)


@pytest.mark.parametrize("value", ["", "a", "-1", "1:2", True, 1.5, None, 2**31, "9" * 100])
def test_what_is_no_group(value: object) -> None:
    with pytest.raises(ValueError, match="is not the number|is larger than 2147483647"):
        parse_id(value)
