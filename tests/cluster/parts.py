"""Built parts, each in a folder named by the key of what it is made from: what is unchanged is not made again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.cluster.places import CACHE, PARTS
from tests.cluster.shell import say

DAYS_KEPT = 14  # a part that no checkout asked for


@dataclass
class Part:
    """``make(folder)`` fills an empty folder; ``recipe`` is everything that its contents depend on, as text."""

    name: str
    recipe: str
    make: Callable[[Path], None]
    needs: list[Part] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def folder(self) -> Path:
        """Where it is, or will be."""
        text = "\0".join([self.recipe, *(need.folder.name for need in self.needs)])
        return PARTS / f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def built(self) -> bool:
        return self.folder.is_dir()

    def build(self) -> None:
        """Make it, after what it needs, unless it is there. A folder is there only when it is complete."""
        with self._lock:
            if self.built:
                os.utime(self.folder)
                return
            together([need.build for need in self.needs])
            began = time.monotonic()
            say(f"{self.name} …")
            unfinished = PARTS / f".{self.folder.name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self.make(unfinished)
            unfinished.rename(self.folder)
            say(f"{self.name}: {time.monotonic() - began:.0f} s")


def together(steps: list[Callable[[], None]]) -> None:
    """All at the same time; the first one's exception, when all have ended."""
    if not steps:
        return
    with ThreadPoolExecutor(len(steps)) as pool:
        for future in [pool.submit(step) for step in steps]:
            future.result()


@contextmanager
def locked() -> Iterator[None]:
    """One build at a time on this machine; a second one waits and then finds everything made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget_old(keep: list[Part]) -> None:
    """Remove what no checkout has asked for in a while, and what was left unfinished."""
    kept = {part.folder for part in keep}
    for folder in PARTS.iterdir():
        age = time.time() - folder.stat().st_mtime
        if folder not in kept and (folder.name.startswith(".") or age > DAYS_KEPT * 86400):
            shutil.rmtree(folder)
