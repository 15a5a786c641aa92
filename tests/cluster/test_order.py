"""The cluster is up only while its own tests run, and those that disturb it run alone."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster.addons import ROOT


def test_the_clusters_tests_come_last_whatever_was_named_first() -> None:
    files = ["tests/cluster/test_jobset.py", "tests/unit/test_ansi.py"]
    words = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    order = [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]
    assert set(order) == set(files)
    assert order == sorted(order, key=files[::-1].index)


def test_the_concurrent_ones_come_before_those_that_disturb_them() -> None:
    words = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/cluster/test_verify.py")
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    order = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert order.index("test_a_tenant_has_two_pods_tried") < order.index("test_a_cable_that_is_cut_is_found")
