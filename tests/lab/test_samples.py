"""The attachments that the plugins are called with: the same in each run, and of many kinds."""

from __future__ import annotations

import json
from collections import Counter

from tests.lab import samples
from tests.lab.cases import IPAMS, KIND_NAMES
from torchnet.k8s.attachments.cni_config import CniConfig


def test_they_are_the_same_in_each_run() -> None:
    assert samples.all_samples() == samples.all_samples()


def test_what_lint_passes_has_each_type_each_ipam_and_both_versions_of_ip() -> None:
    passed = [CniConfig(one.config) for one in samples.all_samples() if one.kind == "passed"]
    assert {one.main.type for one in passed} == set(KIND_NAMES)
    assert {one.ipam_type for one in passed} == set(IPAMS)
    assert {one.is_list for one in passed} == {True, False}
    ranges = json.dumps([one.ipam for one in passed])
    assert "10.7" in ranges
    assert "fcbb:" in ranges


def test_what_lint_refuses_has_many_reasons() -> None:
    refused = [one for one in samples.all_samples() if one.kind == "refused"]
    reasons = Counter(samples.blocking(samples.look(one.config)) for one in refused)
    assert len(reasons) >= len(refused) / samples.MOST_ALIKE
    assert max(reasons.values()) <= samples.MOST_ALIKE
