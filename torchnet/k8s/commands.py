"""``torchnet status | logs | attach | down | verify | network`` on a cluster, apart from parsing their options."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torchnet.config.parsing import beyond
from torchnet.console.console import Console
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.attachments.address_listing import AddressListing, list_addresses
from torchnet.k8s.attachments.lint import Lint
from torchnet.k8s.attachments.namespace_lint import lint_namespace
from torchnet.k8s.client.api_client import ApiClient, connect
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import RUN_LABELS, run_of
from torchnet.k8s.run import listing
from torchnet.k8s.run.creation import missing_attachment_error
from torchnet.k8s.run.deletion import Removal, has_objects, remove
from torchnet.k8s.run.interruptible import Interrupted, Left, ask, in_thread
from torchnet.k8s.run.launch import monitor_and_report
from torchnet.k8s.run.listing import find, survey
from torchnet.k8s.run.log_command import LogReading
from torchnet.k8s.run.log_stream import allow
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.pod_logs import WHOLE, LogExtent
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.status_watch import StatusWatch
from torchnet.k8s.verify import verification
from torchnet.k8s.verify.check import Check
from torchnet.k8s.verify.cluster_report import ClusterReport
from torchnet.k8s.verify.pods import PodOptions
from torchnet.signals import Signals

_TURN_SECONDS = 0.05
_TAIL = 100  # earlier lines of each worker's log that attach shows
_REMOVAL_SECONDS = 45.0  # beyond the pods' grace periods
_CLEANING_SECONDS = 60.0  # after a signal, for the removal of verify's objects
_NO_PODS = "no test pods were created"


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

    def connect(self, signals: Signals, undone: str) -> tuple[ApiClient, str]:
        """Connect to the cluster.

        Args:
            undone: what has not been done yet, for the error after a signal.

        Returns:
            The API client and the namespace.

        Raises:
            ClusterError: the configuration or its credentials cannot be used.
            Left: a signal came while the credentials were being obtained.
        """
        client: ApiClient = ask(lambda: connect(self.kubeconfig, self.context), signals, undone)
        client.access.silence.say = self.say
        return client, self.namespace or client.access.namespace


def status(
    target: ClusterTarget, run: str | None, *, labels: str = "", everywhere: bool = False
) -> listing.RunTable:
    """The rows of all runs, or of ``run`` alone with its workers.

    Args:
        labels: a label selector that the runs' workloads must match.
        everywhere: in all namespaces.

    Raises:
        UsageError: no such run, or ``labels`` is not a selector.
        ClusterError: Jobs or pods cannot be listed, or the cluster cannot be reached.
        Left: a signal came before the list was complete.
    """
    undone = "not all runs were listed"
    with Signals() as signals:
        client, namespace = target.connect(signals, undone)
        where = "" if everywhere else namespace
        table: listing.RunTable = ask(
            lambda: listing.table(client, where, run, labels), signals, undone, client=client
        )
        return table


def follow_status(
    target: ClusterTarget,
    run: str | None,
    show: Callable[[listing.RunTable], None],
    *,
    labels: str = "",
    everywhere: bool = False,
) -> int:
    """Show the rows of :func:`status`, then each row that changes, until a signal comes.

    Args:
        show: receives the rows that have changed; at first all.

    Returns:
        128 + the number of the signal.

    Raises:
        UsageError: there is no such run, or ``labels`` is not a selector.
        ClusterError: the runs cannot be watched, or the cluster cannot be reached.
    """
    with Signals() as signals:
        client, namespace = target.connect(signals, "not all runs were listed")
        watch = StatusWatch(client, "" if everywhere else namespace, run, labels)
        watch.start()
        try:
            while not (taken := signals.take()):
                table = watch.take()
                if table is not None:
                    show(table)
                client.access.silence.look()
                time.sleep(_TURN_SECONDS)
        finally:
            client.stop.set()
        return 128 + taken[0]


def attach(
    target: ClusterTarget, run: str | None, *, ranks: Sequence[int], quiet: bool, json_path: str | None
) -> int:
    """Show the rest of a run, and return its exit code. A signal ends this command, not the run.

    Raises:
        UsageError: there is no such run, or it does not have all of the ``ranks``.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before the run was found.
    """
    with Signals() as signals:
        client, info = _find_run(target, run, signals)
        _check_ranks(info, ranks)
        allow(info.nnodes, info.nproc_per_node, ranks, everybody=False)
        console = Console(world_size=info.nnodes * info.nproc_per_node, ranks=ranks, quiet=quiet)
        client.access.silence.say = partial(console.notice, level="warning")
        options = RunOptions(ranks=tuple(ranks), stops=False, tail=_TAIL)
        return monitor_and_report(client, info, console, options, signals, json_path=json_path)


def logs(
    target: ClusterTarget,
    run: str | None,
    *,
    ranks: Sequence[int],
    follow: bool,
    extent: LogExtent = WHOLE,
    container: str = "",
) -> int:
    """Print the workers' logs as they are now or, with ``follow``, until the workers have ended.

    Args:
        extent: which of the lines that a log holds already are printed.
        container: ``prepare`` or ``worker`` prints this one's logs only.

    Returns:
        0, or 128 + the number of the signal that ended the command.

    Raises:
        UsageError: there is no such run, or it does not have all of the ``ranks``.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before there was anything to print.
    """
    with Signals() as signals:
        client, info = _find_run(target, run, signals)
        _check_ranks(info, ranks)
        console = Console(world_size=info.nnodes * info.nproc_per_node, ranks=ranks)
        client.access.silence.say = partial(console.notice, level="warning")
        return LogReading(client, info, console, ranks, follow, extent, container).show(signals)


def _check_ranks(info: RunInfo, ranks: Sequence[int]) -> None:
    """Reject ranks that the run does not have: no output would ever be shown for them."""
    count = info.nnodes * info.nproc_per_node
    if missing := beyond(ranks, count):
        text = f"--ranks: {missing} is out of range; the ranks of {info.run} are 0 to {count - 1}"
        raise UsageError(text, fix=f"torchnet status {info.command}")


def _find_run(target: ClusterTarget, run: str | None, signals: Signals) -> tuple[ApiClient, RunInfo]:
    undone = "nothing was changed"
    client, namespace = target.connect(signals, undone)
    return client, ask(lambda: find(client, namespace, run), signals, undone, client=client)


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
    target: ClusterTarget,
    run: str | None,
    *,
    now: bool = False,
    on_terminating: Callable[[int, float], None] = lambda *_: None,
) -> Deletion:
    """Stop and remove a run.

    Args:
        now: use a grace period of 1 s, and force the deletion of pods on nodes that are gone or lost.
        on_terminating: with ``now``, called if pods are already terminating, with their number and their longest grace
            period in seconds.

    Raises:
        UsageError: no object has the run's label; without ``run``, there is not exactly one run.
        ClusterError: the cluster cannot be reached, or refuses a request.
        Left: a signal came before the run was found.
    """
    undone = "nothing was removed"
    with Signals() as signals:
        client, namespace = target.connect(signals, undone)
        name, label = ask(lambda: _resolve_name(client, namespace, run), signals, undone, client=client)
        try:
            removal = in_thread(
                lambda: remove(
                    client,
                    namespace,
                    name,
                    label=label,
                    patience=_REMOVAL_SECONDS,
                    now=now,
                    force=now,
                    on_terminating=on_terminating,
                ),
                signals,
                on_signal=client.stop.set,
                silence=client.access.silence,
            )
        except Interrupted as error:
            if isinstance(error.call.error, ClusterError):
                return Deletion(name, namespace, Removal(problems=[str(error.call.error)]), error.number)
            removal = error.call.result()
            if removal is None or removal.left:
                return Deletion(name, namespace, removal, error.number)
        return Deletion(name, namespace, removal)


def _resolve_name(client: ApiClient, namespace: str, run: str | None) -> tuple[str, str]:
    """The name of the run to remove, which may exist only in part, and the key of its label."""
    search = survey(client, namespace, run)
    name = search.only_run() if run is None else run
    if name in search.names:
        return name, run_of({**search.hidden, **search.found}[name]["metadata"])[1]
    for label in RUN_LABELS:
        if has_objects(client, namespace, name, label=label):
            return name, label
    raise search.missing(name)


def verify(
    target: ClusterTarget,
    options: PodOptions,
    on_check: Callable[[Check], None],
    *,
    all_nodes: bool = False,
    cluster_report: ClusterReport | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> int:
    """Verify the backend network of a cluster.

    Args:
        options: What the test pods are like. Networks without a namespace are in the pods' own.
        on_check: receives each check when it is done.
        all_nodes: test with a pod on each node, instead of with two pods.
        cluster_report: receives the results of nodes and paths.
        progress: receives a line while something takes its time.

    Returns:
        0, or 4 if a check has failed.

    Raises:
        UsageError: Kueue would put the pods into a queue that was not asked for.
        ClusterError: the cluster cannot be reached, or does not let this user create pods, or list nodes for
            ``all_nodes``.
        Left: a signal came; the text says what is known of the test pods.
    """
    bad, cleaned = False, True
    with Signals() as signals:
        client, namespace = target.connect(signals, _NO_PODS)
        networks = [replace(one, namespace=one.namespace or namespace) for one in options.networks]
        run_names: list[str] = []
        checks = verification.verify(
            client,
            namespace,
            replace(options, networks=networks),
            lambda: not signals.received,
            all_nodes=all_nodes,
            cluster_report=cluster_report,
            on_start=run_names.append,
            progress=progress,
        )
        number = 0
        while True:
            try:
                check = in_thread(
                    lambda: next(checks, None),
                    signals,
                    patience=0.0 if number else lambda: _CLEANING_SECONDS if run_names else 0.0,
                    on_signal=client.stop.set,
                    silence=client.access.silence,
                )
            except Interrupted as error:
                again, number = bool(number) or error.again, number or error.number
                if not run_names:
                    raise Left(number, _NO_PODS) from None
                if again or not error.call.wait(0):
                    raise _pods_left(number, run_names[0], namespace) from None
                check = error.call.result()
            if check is None:
                break
            on_check(check)
            bad = bad or not check.good
            cleaned = cleaned and (check.good or check.name != verification.CLEANED)
        taken = [number] if number else signals.take()
    if taken:
        pods = "the test pods were deleted" if cleaned else "not all test pods were deleted"
        raise Left(taken[0], pods if run_names else _NO_PODS)
    return 4 if bad else 0


def _pods_left(number: int, run: str, namespace: str) -> Left:
    text = f"the test pods may still exist; all objects of the test have the label {RUN_LABEL}={run}"
    return Left(number, text, fix=f"torchnet down {run} -n {namespace}")


def lint_network(target: ClusterTarget) -> Lint:
    """Check the attachments of a namespace.

    Raises:
        UsageError: there is nothing to check.
        NetworkError: Multus is not installed.
        ClusterError: the cluster cannot be reached, or does not let this user list attachments.
        Left: a signal came before all was read.
    """
    undone = "not all attachments were checked"
    with Signals() as signals:
        client, namespace = target.connect(signals, undone)
        found: Lint = ask(lambda: lint_namespace(client, namespace), signals, undone, client=client)
    if not found.checked:
        lines = [
            f"no network attachments in namespace {namespace}, and no pods that request one",
            *found.skipped,
        ]
        raise UsageError("\n  ".join(lines), fix="kubectl get network-attachment-definitions -A")
    return found


def show_network(target: ClusterTarget, namespace: str, name: str) -> AddressListing:
    """Read who has which address of an attachment.

    Args:
        namespace: "" for the target's.

    Raises:
        NetworkError: there is no such attachment.
        ClusterError: the cluster cannot be reached, or does not let this user read the attachment.
        Left: a signal came before all was read.
    """
    undone = "not all addresses were read"
    with Signals() as signals:
        client, own = target.connect(signals, undone)
        where = namespace or own

        def read() -> AddressListing:
            try:
                return list_addresses(client, where, name)
            except ApiRefusal as error:
                if error.status == 404:
                    existing = "kubectl get network-attachment-definitions -A"
                    raise missing_attachment_error(client, where, name, fix=existing) from None
                raise

        found: AddressListing = ask(read, signals, undone, client=client)
        return found
