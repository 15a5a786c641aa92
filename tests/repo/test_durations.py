"""Each test run in CI ends with what its files and tests cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

TEST = "tests/repo/test_house.py::test_no_lock_file_is_tracked"


@pytest.mark.parametrize("variable", ["CI", "TORCHNET_REQUIRE_ALL", ""])
def test_the_cost_of_each_file_and_test_is_printed_in_ci(variable: str) -> None:
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEST)
    env = {**os.environ, "CI": "", variable or "NEITHER": "1"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    found = re.findall(r"^ +\d+\.\d +\d+\.\d +\d+\.\d  (\S+)$", done.stdout, re.MULTILINE)
    assert found == ([TEST.partition("::")[0], TEST, "all"] if variable else [])
