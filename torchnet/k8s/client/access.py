"""Access to the API server: kubeconfig or service account, credentials, and whether the server responds.

Requests run in threads and register with the :class:`ResponseMonitor`. The thread that prints calls
:meth:`ResponseMonitor.look`, which reports in one line that the server does not respond.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from torchnet.constants import API_DIR
from torchnet.errors import ClusterError
from torchnet.text import listed, printable
from torchnet.yaml_io import YamlError, read_file

NOTICE_SECONDS = 3.0  # without a response before it is reported
_NOTICE_INTERVAL_SECONDS = 60.0  # between two reports


class NoKubeconfigError(ClusterError):
    """No kubeconfig was found, and this is no pod."""


class ResponseMonitor:
    """Detects that one server does not respond, over all calls of a command.

    ``say`` receives the line to print, in the thread that calls :meth:`look`.
    """

    def __init__(self) -> None:
        self.say: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        self._pending: list[PendingRequest] = []
        self._last_response = float("-inf")
        self._last_notice = float("-inf")

    @property
    def seconds(self) -> float:
        """Seconds without a response while a request is pending; 0.0 if none is pending."""
        with self._lock:
            return self._seconds()

    def _seconds(self) -> float:
        if not self._pending:
            return 0.0
        return time.monotonic() - max(self._last_response, min(one.began for one in self._pending))

    def look(self) -> None:
        """Report a server that has not responded for 3 s, and no more than once every 60 s."""
        if self.say is None or time.monotonic() - self._last_notice < _NOTICE_INTERVAL_SECONDS:
            return
        with self._lock:
            if self._seconds() < NOTICE_SECONDS:
                return
            # The command lasts until the request with the longest limit gives up.
            one = max(self._pending, key=lambda request: request.limit)
            self._last_notice = time.monotonic()
        why = f" ({one.problem})" if one.problem else ""
        what = "no usable response" if one.problem.startswith("HTTP") else "no response"
        self.say(f"{what} from {one.place} yet{why}; retrying for {one.limit:g} s")

    def track(self, place: str, *, patience: float, read: float, stream: bool) -> PendingRequest:
        """Return a context manager that registers a call as pending.

        Args:
            place: The server, for messages.
            patience: Seconds for which the call is retried.
            read: Seconds without a byte that end one attempt.
            stream: Whether the call opens a stream. A stream may legitimately start late, so it is registered only
                after a failed attempt.
        """
        return PendingRequest(self, place, patience=patience, read=read, counts=not stream)

    def _begin(self, request: PendingRequest) -> None:
        with self._lock:
            if request not in self._pending:
                self._pending.append(request)

    def _end(self, request: PendingRequest, *, answered: bool) -> None:
        with self._lock:
            if request in self._pending:
                self._pending.remove(request)
            if answered:
                self._last_response = time.monotonic()


class PendingRequest:
    """One call, including its retries.

    ``limit`` is the number of seconds after which it gives up, ``problem`` why the last attempt failed.
    """

    def __init__(
        self, silence: ResponseMonitor, place: str, *, patience: float, read: float, counts: bool
    ) -> None:
        self.place, self.problem = place, ""
        self.began = time.monotonic()
        self.limit = max(patience, read)  # read: the server accepts the connection but sends nothing
        self._silence, self._patience, self._counts = silence, patience, counts

    def __enter__(self) -> PendingRequest:
        if self._counts:
            self._silence._begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._silence._end(self, answered=False)

    def answered(self) -> None:
        """Record a final response, successful or not."""
        self._silence._end(self, answered=True)

    def failed(self, problem: str) -> None:
        """Record a failed attempt, and why it failed."""
        self.problem, self.limit = problem, self._patience
        self._silence._begin(self)


class Credentials:
    """The official client, whose credentials all requests share.

    If the server rejects credentials that it accepted before, they are obtained once more from the same source: the
    files are read again, and an exec plugin runs again. client-go does the same.

    Args:
        client: The official client's ``ApiClient``.
        reload: Returns a new one; None if the source now names another server.
    """

    def __init__(self, client: Any, reload: Callable[[], Any]) -> None:
        self.client = client
        self._reload = reload
        self._lock = threading.Lock()
        self._accepted = False

    def accept(self, client: Any) -> None:
        """Record that the server has accepted the credentials of ``client``."""
        if client is self.client:
            self._accepted = True

    def renew(self, client: Any) -> bool:
        """Return whether to send a request again that was rejected (401) with the credentials of ``client``.

        New credentials that the server has not accepted yet are not renewed, so that requests of many threads run an
        exec plugin once.

        Raises:
            ClusterError: The credentials cannot be obtained.
        """
        with self._lock:
            if client is not self.client:
                return True  # renewed by another thread meanwhile
            if not self._accepted:
                return False
            self._accepted = False
            fresh = self._reload()
            if fresh is not None:
                self.client = fresh
            return fresh is not None


# Connections that the pool keeps open for reuse. Each log follower needs one; those beyond the limit are closed after
# use.
_CONNECTIONS = 64


@dataclass(frozen=True)
class Access:
    """How to reach one API server.

    ``server`` is the base URL of all requests, and ``namespace`` the default namespace.
    """

    credentials: Credentials
    server: str
    context: str
    """The context's name, for messages; "" in a pod."""
    namespace: str
    silence: ResponseMonitor = field(default_factory=ResponseMonitor, compare=False)
    """Shared by all API clients that use this access."""

    @property
    def place(self) -> str:
        """The server and the source of its address, for messages."""
        return (
            f"{self.server} (context {self.context!r})"
            if self.context
            else f"{self.server} (this pod's service account)"
        )


def load(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """Return the access that the options and the environment describe.

    Sends no request, but may run an exec plugin to obtain credentials.

    Args:
        kubeconfig: Path, or several as in KUBECONFIG. Without it, KUBECONFIG or ~/.kube/config is used, then the pod's
            service account.
        context: Name of a context; None for the current one.

    Raises:
        ClusterError: There is no kubeconfig, it is invalid or lacks the context, or the credentials cannot be obtained.
    """
    client, name, namespace = _load_client(kubeconfig, context)
    server = str(client.configuration.host)

    def reload() -> Any:
        # By the context's name, since another one may be the current one by now; and no server gets credentials that
        # are meant for another one.
        fresh, _, _ = _load_client(kubeconfig, name or None)
        return fresh if str(fresh.configuration.host) == server else None

    return Access(Credentials(client, reload), server, name, namespace)


def _load_client(kubeconfig: str | None, context: str | None) -> tuple[Any, str, str]:
    """Return the official client, and the context's name and namespace."""
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    # `torchnet.k8s.client.api_client` retries instead: with jitter, and with a limit on the total time.
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = _CONNECTIONS
    # urllib3 warns about each connection that does not fit into the pool.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [
        path for path in map(os.path.expanduser, paths.split(os.pathsep)) if path and os.path.exists(path)
    ]
    if files:
        name, namespace = _from_files(configuration, os.pathsep.join(files), context)
    elif kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise NoKubeconfigError(
            f"no kubeconfig: no such file: {printable(paths)}",
            fix="set --kubeconfig or KUBECONFIG; without --on kubernetes, torchnet runs on this machine",
        )
    else:
        name, namespace = _from_pod(configuration)
    client = ApiClient(configuration)
    client.user_agent = "torchnet"
    return client, name, namespace


def _from_files(configuration: Any, files: str, context: str | None) -> tuple[str, str]:
    from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config

    collector = _LogCollector()
    logging.getLogger().addHandler(collector)  # the client only logs the errors of an exec plugin
    try:
        _check_lists(files)
        contexts, current = list_kube_config_contexts(config_file=files)
        context_names = [str(one["name"]) for one in contexts]
        if context is not None and context not in context_names:
            raise ClusterError(
                f"the kubeconfig has no context {printable(context)!r}; available: {listed(context_names, limit=10)}",
                fix="kubectl config get-contexts",
            )
        context = context or _first_current(files, context_names)
        load_kube_config(
            config_file=files, context=context, client_configuration=configuration, persist_config=False
        )
    except ConfigException as error:
        raise _kubeconfig_error(files, error) from None
    except Exception as error:  # invalid YAML, a missing certificate, unexpected types
        if isinstance(error, ClusterError):
            raise
        raise _kubeconfig_error(files, error) from None
    finally:
        logging.getLogger().removeHandler(collector)
    if collector.lines:
        raise ClusterError(
            f"cannot obtain credentials from the kubeconfig: {printable(collector.lines[-1], 500)}",
            fix="kubectl auth whoami",
        )
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str(chosen["name"]), str(chosen["context"].get("namespace") or "default")


def _check_lists(files: str) -> None:
    """Raise `ClusterError` if a field that has to be a list is not one: the official client does not name it."""
    for path in files.split(os.pathsep):
        try:
            document = read_file(path)
        except YamlError:
            continue  # the client may still be able to read the file
        for field_name in ("clusters", "contexts", "users"):
            if isinstance(document, dict) and not isinstance(document.get(field_name) or [], list):
                raise _kubeconfig_error(path, f"{field_name} must be a list")


def _first_current(files: str, context_names: list[str]) -> str | None:
    """Return the current context by kubectl's rule: of several files, the first that names one counts.

    The official client uses the last one. None leaves the choice to the client.
    """
    for path in files.split(os.pathsep):
        try:
            document = read_file(path)
        except YamlError:
            return None  # the client may still be able to read the file
        name = document.get("current-context") if isinstance(document, dict) else None
        if name:
            return str(name) if name in context_names else None
    return None


def _from_pod(configuration: Any) -> tuple[str, str]:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
        return "", Path(API_DIR, "namespace").read_text().strip()
    except (ConfigException, OSError) as error:
        raise ClusterError(
            f"cannot use this pod's service account: {error}",
            fix="set serviceAccountName in the pod, or --kubeconfig FILE",
        ) from None


def _kubeconfig_error(files: str, error: Exception | str) -> ClusterError:
    text = " ".join(str(error).split()) or type(error).__name__
    return ClusterError(
        f"invalid kubeconfig {printable(files)}: {printable(text, 500)}", fix="kubectl config view"
    )


class _LogCollector(logging.Handler):
    """Collects errors that the official client only logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
