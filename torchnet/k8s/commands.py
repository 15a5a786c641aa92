"""``torchnet status | logs | attach | down | verify`` on a cluster, apart from parsing their options."""

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
from torchnet.k8s.run.launch import monitor_and_report
from torchnet.k8s.run.listing import find, survey
from torchnet.k8s.run.log_command import LogReading
from torchnet.k8s.run.log_stream import allow
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.verify import verification
from torchnet.k8s.verify.checks import Check
from torchnet.signals import Signals

_TAIL = 100  # earlier lines of each worker's log that attach shows
_REMOVAL_SECONDS = 45.0  # beyond the pods' grace periods
_CLEANING_SECONDS = 60.0  # after a signal, for the removal of verify's objects
_NO_PODS = "the verification had not got to its test pods; nothing was made"


@dataclass(frozen=True)
class ClusterTarget:
    """The cluster and the namespace of a command; None is kubectl's default.

    Attributes:
        say: receives a line if the API server does not respond.
    """

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    say: Callable[[str], None] = lambda _: None

    def door(self, signals: Signals, undone: str) -> tuple[ApiClient, str]:
        """Connect to the cluster.

        Args:
            undone: what has not been done yet, for the error after a signal.

        Returns:
            The API client and the namespace.

        Raises:
            ClusterError: the configuration or its credentials cannot be used.
            Left: a signal came while the credentials were being obtained.
        """
        door: ApiClient = ask(lambda: connect(self.kubeconfig, self.context), signals, undone)
        door.access.silence.say = self.say
        return door, self.namespace or door.access.namespace


def status(place: ClusterTarget, run: str | None) -> listing.RunTable:
    """The rows of all runs, or of ``run`` alone with its workers.

    Raises:
        UsageError: no such run.
        ClusterError: Jobs or pods cannot be listed, or the cluster cannot be reached.
        Left: a signal came before the list was complete.
    """
    undone = "the cluster had not yet told of all runs"
    with Signals() as signals:
        door, namespace = place.door(signals, undone)
        table: listing.RunTable = ask(lambda: listing.table(door, namespace, run), signals, undone, door=door)
        return table


def attach(
    place: ClusterTarget, run: str | None, *, ranks: Sequence[int], quiet: bool, json_path: str | None
) -> int:
    """Show the rest of a run, and return its exit code. A signal ends this command, not the run.

    Raises:
        UsageError: there is no such run, or it does not have all of the ``ranks``.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before the run was found.
    """
    with Signals() as signals:
        door, known = _found(place, run, signals)
        _check_ranks(known, ranks)
        allow(known.nnodes, known.nproc_per_node, ranks, everybody=False)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks, quiet=quiet)
        door.access.silence.say = partial(console.notice, level="warning")
        wishes = RunOptions(ranks=tuple(ranks), stops=False, tail=_TAIL)
        return monitor_and_report(door, known, console, wishes, signals, json_path=json_path)


def logs(place: ClusterTarget, run: str | None, *, ranks: Sequence[int], follow: bool) -> int:
    """Print the workers' logs as they are now or, with ``follow``, until the workers have ended.

    Returns:
        0, or 128 + the number of the signal that ended the command.

    Raises:
        UsageError: there is no such run, or it does not have all of the ``ranks``.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before there was anything to print.
    """
    with Signals() as signals:
        door, known = _found(place, run, signals)
        _check_ranks(known, ranks)
        console = Console(world_size=known.nnodes * known.nproc_per_node, ranks=ranks)
        door.access.silence.say = partial(console.notice, level="warning")
        return LogReading(door, known, console, ranks, follow).show(signals)


def _check_ranks(known: RunInfo, ranks: Sequence[int]) -> None:
    """Reject ranks that the run does not have: no output would ever be shown for them."""
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
    """The result of :func:`down`.

    Attributes:
        removal: what is left; None if the removal did not end in time after a signal.
        number: the number of the signal that interrupted the removal; 0 if it completed.
    """

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
    """Stop and remove a run.

    Args:
        now: use a grace period of 1 s, and force the deletion of pods on nodes that are gone or not Ready.
        leaving: with ``now``, called if pods are terminating already, with their number and their longest grace period
            in seconds.

    Raises:
        UsageError: no object has the run's label; without ``run``, there is not exactly one run.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before the run was found.
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
    """The name of the run to remove, which may exist only in part."""
    there = survey(door, namespace, run)
    if run is None:
        return there.only()
    if run not in there.names and not labelled(door, namespace, run):
        raise there.missing(run)
    return run


def verify(place: ClusterTarget, network: str, image: str, said: Callable[[Check], None]) -> int:
    """Verify the backend network of a cluster.

    Args:
        network: ``[NAMESPACE/]NAME`` of the network attachment.
        said: receives each check when it is done.

    Returns:
        0, or 4 if a check has failed.

    Raises:
        ClusterError: the cluster cannot be reached, or does not let this user read it or create pods.
        Left: a signal came; the text says what is known of the test pods.
    """
    bad, cleaned = False, True
    with Signals() as signals:
        door, namespace = place.door(signals, _NO_PODS)
        where, slash, name = network.rpartition("/")
        target = (where if slash else namespace, name)
        made: list[str] = []
        checks = verification.verify(
            door, namespace, target, image, lambda: not signals.received, made.append
        )
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
