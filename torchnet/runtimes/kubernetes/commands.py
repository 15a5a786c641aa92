"""What ``torchnet status | logs | attach | down`` do, apart from reading their options."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchnet.network.text import listed
from torchnet.runtimes.kubernetes import runs
from torchnet.runtimes.kubernetes import verify as verification
from torchnet.runtimes.kubernetes.door import Door, connect
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.following import Following
from torchnet.runtimes.kubernetes.gang import Gang
from torchnet.runtimes.kubernetes.installed import Check
from torchnet.runtimes.kubernetes.interruptible import Interrupted, in_thread
from torchnet.runtimes.kubernetes.launching import see
from torchnet.runtimes.kubernetes.remove import Removal, labelled, remove
from torchnet.runtimes.kubernetes.resources import POD, selector
from torchnet.runtimes.kubernetes.session import Wishes
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.runtimes.kubernetes.watch import Watch
from torchnet.ui.console import Console

_TAIL = 100  # lines of each worker that attach shows of what was before
_REMOVAL_SECONDS = 45.0


@dataclass(frozen=True)
class Place:
    """Where a command looks: None is what kubectl would take."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def door(self) -> tuple[Door, str]:
        """The door, and the namespace."""
        door = connect(self.kubeconfig, self.context)
        return door, self.namespace or door.access.namespace


def status(place: Place, run: str | None) -> list[runs.Row]:
    """The rows of all runs, or of this one, with its workers."""
    door, namespace = place.door()
    return runs.rows(door, namespace, run)


def attach(place: Place, run: str | None, *, ranks: Sequence[int], quiet: bool, json_path: str | None) -> int:
    """Show the rest of a run, and give its exit code. A signal leaves it alone."""
    with Signals() as signals:
        door, namespace = place.door()
        known = runs.find(door, namespace, run)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks, quiet=quiet)
        wishes = Wishes(ranks=tuple(ranks), stops=False, tail=_TAIL)
        return see(door, known, console, wishes, signals, keep=True, json_path=json_path)


def logs(place: Place, run: str | None, *, ranks: Sequence[int], follow: bool) -> int:
    """Print what the workers' logs hold; with ``follow`` until they end. Returns 0, or 130 after Ctrl-C."""
    with Signals() as signals:
        door, namespace = place.door()
        known = runs.find(door, namespace, run)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks)
        return _Logs(door, known, console, ranks, follow).show(signals)


class _Logs:
    """The workers' states are needed to know what there is to read, and when it ends."""

    def __init__(
        self, door: Door, known: Facts, console: Console, ranks: Sequence[int], follow: bool
    ) -> None:
        self._door, self._known, self._console, self._follow = door, known, console, follow
        self._gang = Gang(known.nnodes, restarts=known.restarts)
        self._lock = threading.Lock()
        self._following = Following(door, known, ranks=ranks, everybody=not ranks, follow=follow)

    def show(self, signals: Signals) -> int:
        pods = self._door.call(
            "GET",
            POD.path(self._known.namespace),
            POD.call("list", self._known.namespace),
            query={"labelSelector": selector(self._known.run)},
        )
        self._gang.listed(pods.get("items") or ())
        if self._follow:
            failed: list[Exception] = []
            Watch(
                self._door,
                self._known.namespace,
                self._known.run,
                listed=self._listed,
                event=self._event,
                failed=failed.append,
            ).start()
        while True:
            taken = signals.take()
            with self._lock:
                workers = self._gang.workers()
                there = bool(self._gang.pods())
            self._following.update(workers)
            while (event := self._following.take()) is not None:
                self._console.event(event)
            self._console.tick()
            ended = all(one.ended for one in workers.values()) and len(workers) == self._known.nnodes
            if taken or (not self._following.busy and (not self._follow or ended or not there)):
                self._door.stop.set()
                self._console.close()
                return 128 + taken[0] if taken else 0
            time.sleep(0.05)

    def _listed(self, pods: list[dict[str, object]]) -> None:
        with self._lock:
            self._gang.listed(pods)

    def _event(self, kind: str, pod: dict[str, object]) -> None:
        with self._lock:
            self._gang.event(kind, pod)


def down(place: Place, run: str | None, *, now: bool = False) -> tuple[str, Removal]:
    """Stop and remove a run: its name, and what came of it.

    Raises:
        UsageError: there is nothing that bears its label.
    """
    with Signals() as signals:
        door, namespace = place.door()
        there = runs.workloads(door, namespace, run)
        if run is None:
            run = runs.only(list(there), namespace)
        elif run not in there and not labelled(door, namespace, run):
            runs.find(door, namespace, run)  # says so
        name = run
        try:
            return name, in_thread(
                lambda: remove(door, namespace, name, patience=_REMOVAL_SECONDS, now=now, force=now), signals
            )
        except Interrupted as error:
            removal = Removal(left=labelled(door, namespace, name))
            removal.problems.append(f"stopped by {error}: still there: {listed(removal.left, limit=10)}")
            return name, removal


def verify(place: Place, network: str, image: str, said: Callable[[Check], None]) -> int:
    """Run the verification; ``said`` gets each check as it is done. 0, 4, or 128 + a signal's number.

    Args:
        network: ``[NAMESPACE/]NAME`` of the attachment.
    """
    with Signals() as signals:
        door, namespace = place.door()
        where, slash, name = network.rpartition("/")
        target = (where if slash else namespace, name)
        bad = False
        for check in verification.verify(door, namespace, target, image, lambda: not signals.waiting):
            said(check)
            bad = bad or not check.good
        taken = signals.take()
    return 128 + taken[0] if taken else 4 if bad else 0
