"""Which API server, as which user: found as kubectl finds it.

--kubeconfig, else KUBECONFIG (a list of files, merged), else ~/.kube/config; where there is none and this is a pod, the
pod's own service account. Proxies (proxy-url, HTTPS_PROXY, NO_PROXY), exec plugins with their renewal, client
certificates and tls-server-name are the official client's.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchnet.errors import ClusterError
from torchnet.names import API_DIR
from torchnet.network.text import listed, printable
from torchnet.render.plain_yaml import YamlError, read_file
from torchnet.runtimes.kubernetes.silence import Silence

_CONNECTIONS = (
    64  # kept open for the next call; of more, as many as there are followers, the rest is closed after use
)


@dataclass(frozen=True)
class Access:
    """``client`` is the official client's ApiClient; the other fields are for messages, and the default namespace."""

    client: Any
    server: str
    context: str
    """The context's name; "" in a pod."""
    namespace: str
    silence: Silence = field(default_factory=Silence, compare=False)
    """Of the server, towards all doors to it."""

    @property
    def place(self) -> str:
        """For messages: the server and where its address comes from."""
        return (
            f"{self.server} (context {self.context!r})"
            if self.context
            else f"{self.server} (this pod's account)"
        )


def load(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """The access that these two options and the environment describe; makes no call, but may run an exec plugin.

    Raises:
        ClusterError: there is no configuration, the context is not in it, or its credentials cannot be had.
    """
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    # Retried here, not there: with jitter, with a bound, and never what must not be sent twice.
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = _CONNECTIONS
    # It warns of each connection that it does not keep.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [
        path for path in map(os.path.expanduser, paths.split(os.pathsep)) if path and os.path.exists(path)
    ]
    if files:
        name, namespace = _from_files(configuration, os.pathsep.join(files), context)
    elif kubeconfig or context or "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise ClusterError(
            f"no kubeconfig: {printable(paths)} does not exist",
            fix="--kubeconfig FILE, or KUBECONFIG; torchnet runs on this machine without --on kubernetes",
        )
    else:
        name, namespace = _from_pod(configuration)
    client = ApiClient(configuration)
    client.user_agent = "torchnet"
    return Access(client, str(configuration.host), name, namespace)


def _from_files(configuration: Any, files: str, context: str | None) -> tuple[str, str]:
    from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config

    said = _Said()
    logging.getLogger().addHandler(said)  # where the client leaves what an exec plugin complained of
    try:
        contexts, current = list_kube_config_contexts(config_file=files)
        known = [str(one["name"]) for one in contexts]
        if context is not None and context not in known:
            raise ClusterError(
                f"the kubeconfig has no context {printable(context)!r}; it has {listed(known, limit=10)}",
                fix="kubectl config get-contexts",
            )
        context = context or _first_current(files, known)
        load_kube_config(
            config_file=files, context=context, client_configuration=configuration, persist_config=False
        )
    except ConfigException as error:
        raise _unreadable(files, error) from None
    except (
        Exception
    ) as error:  # YAML that is none, a certificate that is missing, types that are not expected
        if isinstance(error, ClusterError):
            raise
        raise _unreadable(files, error) from None
    finally:
        logging.getLogger().removeHandler(said)
    if said.lines:
        raise ClusterError(
            f"the kubeconfig's credentials cannot be had: {printable(said.lines[-1], 500)}",
            fix="kubectl auth whoami shows whether kubectl gets them",
        )
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str(chosen["name"]), str(chosen["context"].get("namespace") or "default")


def _first_current(files: str, known: list[str]) -> str | None:
    """kubectl's rule for several files, the first that names a current context; the client takes the last."""
    for path in files.split(os.pathsep):
        try:
            document = read_file(path)
        except YamlError:
            return None  # what it cannot read, the client may: its own rule then
        name = document.get("current-context") if isinstance(document, dict) else None
        if name:
            return str(name) if name in known else None
    return None


def _from_pod(configuration: Any) -> tuple[str, str]:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
        return "", Path(API_DIR, "namespace").read_text().strip()
    except (ConfigException, OSError) as error:
        raise ClusterError(
            f"this pod's account cannot be used: {error}",
            fix="serviceAccountName in the pod, or --kubeconfig FILE",
        ) from None


def _unreadable(files: str, error: Exception) -> ClusterError:
    text = " ".join(str(error).split()) or type(error).__name__
    return ClusterError(
        f"the kubeconfig {printable(files)} cannot be used: {printable(text, 500)}", fix="kubectl config view"
    )


class _Said(logging.Handler):
    """Collects what the client reports by logging alone."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
