"""The tests' own browser: one that does not answer ends a test, and does not hold it."""

from __future__ import annotations

import os

import pytest

from tests import browser


def test_a_browser_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "SECONDS", 0.05)
    theirs, commands = os.pipe()
    answers, ours = os.pipe()
    try:
        with pytest.raises(AssertionError, match=r"Target\.getTargets: no answer in 0\.05 s"):
            browser.Browser(commands, answers)
        assert b"Target.getTargets" in os.read(theirs, 1 << 10)
    finally:
        for descriptor in (theirs, commands, answers, ours):
            os.close(descriptor)
