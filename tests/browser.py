"""Chromium without a window, driven over a pipe (DevTools protocol): no port, no package, nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import needs

SECONDS = 60  # for one answer: the machine may be busy
# Chromium reads commands from descriptor 3 and answers on 4.
_START = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])  # they may be 3 and 4
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-crash-reporter", "--no-zygote",
    "--hide-scrollbars", "about:blank",
)  # fmt: skip


class Browser:
    """One page. ``events`` are all that Chromium told, as the protocol has them."""

    def __init__(self, commands: int, answers: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._commands, self._answers = commands, answers
        self._rest, self._last, self._session = b"", 0, ""
        page = next(one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            message = self._next(deadline, method)
            if message.get("id") != self._last:
                self.events.append(message)
                continue
            assert "error" not in message, f"{method}: {message['error']}"
            result: dict[str, Any] = message["result"]
            return result

    def open(self, file: Path) -> None:
        """Load the file, until the page is complete."""
        self.events.clear()
        self.ask("Page.navigate", url=file.as_uri())
        deadline = time.monotonic() + SECONDS
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(deadline, "the page's load"))

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """As on a screen of this size, in points."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media="", features=[scheme])

    def value(self, script: str) -> Any:
        """What the expression gives in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def _next(self, deadline: float, awaited: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._answers], [], [], left)[0], f"{awaited}: no answer in {SECONDS} s"
            piece = os.read(self._answers, 1 << 16)
            assert piece, "Chromium ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A running Chromium with its profile in ``folder``; skips the test where there is none."""
    __tracebackhide__ = True
    path = needs.program("chromium")
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]
    with open(folder / "chromium.log", "wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), path, *flags],
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    for descriptor in (theirs_in, theirs_out):
        os.close(descriptor)
    try:
        yield Browser(commands, answers)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        for descriptor in (commands, answers):
            os.close(descriptor)
