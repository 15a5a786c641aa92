"""What ``torchnet status | logs | attach | down`` do, apart from reading their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torchnet.config.parsing import beyond
from torchnet.console.console import Console
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.client.api import ApiClient, connect
from torchnet.k8s.run import listing
from torchnet.k8s.run.deletion import Removal, labelled, remove
from torchnet.k8s.run.interruptible import Interrupted, Left, ask, in_thread
from torchnet.k8s.run.launch import see
from torchnet.k8s.run.listing import find, survey
from torchnet.k8s.run.log_command import LogReading
from torchnet.k8s.run.log_stream import allow
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.verify import verification
from torchnet.k8s.verify.checks import Check
from torchnet.signals import Signals

_TAIL = 100  # lines of each worker that attach shows of what was before
_REMOVAL_SECONDS = 45.0  # beyond the pods' own time
_CLEANING_SECONDS = 60.0  # for what verify has made, after a signal
_NO_PODS = "the verification had not got to its test pods; nothing was made"


@dataclass(frozen=True)
class ClusterTarget:
    """Where a command looks: None is what kubectl would take. ``say`` gets torchnet's own lines meanwhile."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    say: Callable[[str], None] = lambda _: None

    def door(self, signals: Signals, undone: str) -> tuple[ApiClient, str]:
        """The door, and the namespace; ``undone`` as `torchnet.k8s.run.interruptible.ask` has it.

        Raises:
            Left: a signal came while the credentials were being had.
        """
        door: ApiClient = ask(lambda: connect(self.kubeconfig, self.context), signals, undone)
        door.access.silence.say = self.say
        return door, self.namespace or door.access.namespace


def status(place: ClusterTarget, run: str | None) -> listing.RunTable:
    """The rows of all runs, or of this one, with its workers.

    Raises:
        Left: a signal came before all was known.
    """
    undone = "the cluster had not yet told of all runs"
    with Signals() as signals:
        door, namespace = place.door(signals, undone)
        table: listing.RunTable = ask(lambda: listing.table(door, namespace, run), signals, undone, door=door)
        return table


def attach(
    place: ClusterTarget, run: str | None, *, ranks: Sequence[int], quiet: bool, json_path: str | None
) -> int:
    """Show the rest of a run, and give its exit code. A signal leaves it alone.

    Raises:
        UsageError: there is no such run, or it has not all of the ``ranks``.
        ClusterError: the cluster cannot be reached or asked any more.
    """
    with Signals() as signals:
        door, known = _found(place, run, signals)
        _check_ranks(known, ranks)
        allow(known.nnodes, known.nproc_per_node, ranks, everybody=False)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks, quiet=quiet)
        door.access.silence.say = partial(console.notice, level="warning")
        wishes = RunOptions(ranks=tuple(ranks), stops=False, tail=_TAIL)
        return see(door, known, console, wishes, signals, json_path=json_path)


def logs(place: ClusterTarget, run: str | None, *, ranks: Sequence[int], follow: bool) -> int:
    """Print what the workers' logs hold; with ``follow`` until they end. Returns 0, or 130 after Ctrl-C.

    Raises:
        UsageError: there is no such run, or it has not all of the ``ranks``.
        ClusterError: what the logs belong to cannot be asked for any more.
    """
    with Signals() as signals:
        door, known = _found(place, run, signals)
        _check_ranks(known, ranks)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks)
        door.access.silence.say = partial(console.notice, level="warning")
        return LogReading(door, known, console, ranks, follow).show(signals)


def _check_ranks(known: RunInfo, ranks: Sequence[int]) -> None:
    """Of ranks that there are not nothing would ever be shown."""
    count = known.nnodes * known.nproc_per_node
    if missing := beyond(ranks, count):
        text = f"--ranks holds {missing}, and the ranks of {known.run} are 0 to {count - 1}"
        raise UsageError(text, fix=f"torchnet status {known.command} shows its workers")


def _found(place: ClusterTarget, run: str | None, signals: Signals) -> tuple[ApiClient, RunInfo]:
    undone = "the run had not been found yet; nothing was changed"
    door, namespace = place.door(signals, undone)
    return door, ask(lambda: find(door, namespace, run), signals, undone, door=door)


@dataclass(frozen=True)
class Deletion:
    """``removal`` is None where a signal (``number``) came, and the removal did not end for it."""

    run: str
    namespace: str
    removal: Removal | None
    number: int = 0


def down(
    place: ClusterTarget,
    run: str | None,
    *,
    now: bool = False,
    leaving: Callable[[int, float], None] = lambda *_: None,
) -> Deletion:
    """Stop and remove a run: what came of it; ``leaving`` as `torchnet.k8s.run.deletion` has it.

    Raises:
        UsageError: there is nothing that bears its label.
        ClusterError: the cluster cannot be reached.
    """
    undone = "the run had not been found yet; nothing was removed"
    with Signals() as signals:
        door, namespace = place.door(signals, undone)
        name: str = ask(lambda: _meant(door, namespace, run), signals, undone, door=door)
        try:
            removal = in_thread(
                lambda: remove(
                    door, namespace, name, patience=_REMOVAL_SECONDS, now=now, force=now, leaving=leaving
                ),
                signals,
                on_signal=door.stop.set,
                silence=door.access.silence,
            )
        except Interrupted as error:
            if isinstance(error.call.error, ClusterError):
                return Deletion(name, namespace, Removal(problems=[str(error.call.error)]), error.number)
            removal = error.call.result()
            if removal is None or removal.left:
                return Deletion(name, namespace, removal, error.number)
        return Deletion(name, namespace, removal)


def _meant(door: ApiClient, namespace: str, run: str | None) -> str:
    """The name of the run that is to be removed: of one that is there, or of what is left of one."""
    there = survey(door, namespace, run)
    if run is None:
        return there.only()
    if run not in there.names and not labelled(door, namespace, run):
        raise there.missing(run)
    return run


def verify(place: ClusterTarget, network: str, image: str, said: Callable[[Check], None]) -> int:
    """Run the verification; ``said`` gets each check as it is done. 0, or 4.

    Args:
        network: ``[NAMESPACE/]NAME`` of the attachment.

    Raises:
        Left: a signal came; it says what is known of the test pods.
        ClusterError: as `torchnet.k8s.verify.verification` has it.
    """
    bad, cleaned = False, True
    with Signals() as signals:
        door, namespace = place.door(signals, _NO_PODS)
        where, slash, name = network.rpartition("/")
        target = (where if slash else namespace, name)
        made: list[str] = []
        checks = verification.verify(door, namespace, target, image, lambda: not signals.came, made.append)
        number = 0
        while True:
            try:
                check = in_thread(
                    lambda: next(checks, None),
                    signals,
                    patience=0.0 if number else lambda: _CLEANING_SECONDS if made else 0.0,
                    on_signal=door.stop.set,
                    silence=door.access.silence,
                )
            except Interrupted as error:
                again, number = bool(number) or error.again, number or error.number
                if not made:
                    raise Left(number, _NO_PODS) from None
                if again or not error.call.wait(0):
                    raise _pods_left(number, made[0], namespace) from None
                check = error.call.result()
            if check is None:
                break
            said(check)
            bad = bad or not check.good
            cleaned = cleaned and (check.good or check.name != verification.CLEANED)
        taken = [number] if number else signals.take()
    if taken:
        pods = "the test pods have been removed" if cleaned else "not all of its test pods have been removed"
        raise Left(taken[0], pods if made else _NO_PODS)
    return 4 if bad else 0


def _pods_left(number: int, run: str, namespace: str) -> Left:
    text = f"the removal of the test pods has not ended; all that was made has the label {RUN_LABEL}={run}"
    return Left(number, text, fix=f"torchnet down {run} -n {namespace}")
