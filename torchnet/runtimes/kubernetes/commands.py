"""What ``torchnet status | logs | attach | down`` do, apart from reading their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchnet.errors import ClusterError, UsageError
from torchnet.runtimes.kubernetes import runs
from torchnet.runtimes.kubernetes import verify as verification
from torchnet.runtimes.kubernetes.door import Door, connect
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.following import allow
from torchnet.runtimes.kubernetes.installed import Check
from torchnet.runtimes.kubernetes.interruptible import Interrupted, in_thread
from torchnet.runtimes.kubernetes.launching import see
from torchnet.runtimes.kubernetes.reading import Reading
from torchnet.runtimes.kubernetes.remove import Removal, labelled, remove
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.runtimes.kubernetes.survey import find, survey
from torchnet.runtimes.kubernetes.wishes import Wishes
from torchnet.spec.values import beyond
from torchnet.ui.console import Console

_TAIL = 100  # lines of each worker that attach shows of what was before
_REMOVAL_SECONDS = 45.0  # beyond the pods' own time


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


def status(place: Place, run: str | None) -> runs.Table:
    """The rows of all runs, or of this one, with its workers."""
    door, namespace = place.door()
    return runs.table(door, namespace, run)


def attach(place: Place, run: str | None, *, ranks: Sequence[int], quiet: bool, json_path: str | None) -> int:
    """Show the rest of a run, and give its exit code. A signal leaves it alone.

    Raises:
        UsageError: there is no such run, or it has not all of the ``ranks``.
        ClusterError: the cluster cannot be reached or asked any more.
    """
    with Signals() as signals:
        door, namespace = place.door()
        known = find(door, namespace, run)
        _check_ranks(known, ranks)
        allow(known.nnodes, known.nproc_per_node, ranks, everybody=False)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks, quiet=quiet)
        wishes = Wishes(ranks=tuple(ranks), stops=False, tail=_TAIL)
        return see(door, known, console, wishes, signals, json_path=json_path)


def logs(place: Place, run: str | None, *, ranks: Sequence[int], follow: bool) -> int:
    """Print what the workers' logs hold; with ``follow`` until they end. Returns 0, or 130 after Ctrl-C.

    Raises:
        UsageError: there is no such run, or it has not all of the ``ranks``.
        ClusterError: what the logs belong to cannot be asked for any more.
    """
    with Signals() as signals:
        door, namespace = place.door()
        known = find(door, namespace, run)
        _check_ranks(known, ranks)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks)
        return Reading(door, known, console, ranks, follow).show(signals)


def _check_ranks(known: Facts, ranks: Sequence[int]) -> None:
    """Of ranks that there are not nothing would ever be shown."""
    count = known.nnodes * known.nproc_per_node
    if missing := beyond(ranks, count):
        text = f"--ranks holds {missing}, and the ranks of {known.run} are 0 to {count - 1}"
        raise UsageError(text, fix=f"torchnet status {known.command} shows its workers")


@dataclass(frozen=True)
class Down:
    """``removal`` is None where a signal (``number``) came, and the removal did not end for it."""

    run: str
    namespace: str
    removal: Removal | None
    number: int = 0


def down(
    place: Place,
    run: str | None,
    *,
    now: bool = False,
    leaving: Callable[[int, float], None] = lambda *_: None,
) -> Down:
    """Stop and remove a run: what came of it; ``leaving`` as `torchnet.runtimes.kubernetes.remove` has it.

    Raises:
        UsageError: there is nothing that bears its label.
        ClusterError: the cluster cannot be reached.
    """
    with Signals() as signals:
        door, namespace = place.door()
        there = survey(door, namespace, run)
        if run is None:
            run = there.only()
        elif run not in there.names and not labelled(door, namespace, run):
            raise there.missing(run)
        name = run
        try:
            removal = in_thread(
                lambda: remove(
                    door, namespace, name, patience=_REMOVAL_SECONDS, now=now, force=now, leaving=leaving
                ),
                signals,
                on_signal=door.stop.set,
            )
        except Interrupted as error:
            if isinstance(error.call.error, ClusterError):
                return Down(name, namespace, Removal(problems=[str(error.call.error)]), error.number)
            removal = error.call.result()
            if removal is None or removal.left:
                return Down(name, namespace, removal, error.number)
        return Down(name, namespace, removal)


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
        for check in verification.verify(door, namespace, target, image, lambda: not signals.came):
            said(check)
            bad = bad or not check.good
        taken = signals.take()
    return 128 + taken[0] if taken else 4 if bad else 0
