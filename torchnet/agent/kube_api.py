"""An API client for pods: one small, bounded GET at a time, with only the standard library.

As in "Accessing the Kubernetes API from a Pod", the address is in the environment; token, certificate authority and
namespace are in the service account's folder.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from torchnet.constants import API_DIR, ATTEMPT_LABEL, INDEX_LABEL, NODE_RANK_LABEL, RUN_LABEL
from torchnet.errors import ClusterError, NotYetError
from torchnet.network.network_status import canonical
from torchnet.text import loads, printable

LIMIT = 2 << 20  # bytes; an object's annotations are limited to 256 KiB
_DEPTH = 64
_SECONDS = 5.0  # for each socket operation
_WHOLE_SECONDS = 10.0  # for a response; it blocks the event loop
_AGAIN_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0
_KIND = "application/json;as={};v=v1;g=meta.k8s.io"


@dataclass(frozen=True)
class Ask:
    """A request for pod metadata: of one pod by ``name``, or of those that the selectors match.

    Attributes:
        whole: Request whole pods, with their status.
    """

    namespace: str
    name: str = ""
    labels: str = ""
    fields: str = ""
    whole: bool = False

    @property
    def verb(self) -> str:
        return "get" if self.name else "list"

    @property
    def target(self) -> str:
        path = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/pods"
        if self.name:
            return f"{path}/{quote(self.name, safe='')}"
        # From the API server's cache: a thousand workers ask, and else each list reads all pods of the namespace from
        # etcd. Old data do no harm: workers ask again, and rank 0's handshake proves an address.
        query = {"labelSelector": self.labels, "fieldSelector": self.fields, "resourceVersion": "0"}
        return f"{path}?{urlencode({name: text for name, text in query.items() if text})}"

    @property
    def accept(self) -> str:
        if self.whole:
            return "application/json"
        return _KIND.format("PartialObjectMetadata" if self.name else "PartialObjectMetadataList")

    def __str__(self) -> str:
        which = f" {self.name}" if self.name else f" ({self.labels or self.fields})"
        return f"{self.verb} pods{which} in namespace {self.namespace}"


class ApiServer:
    """The API server of this pod's cluster. The connection is kept for the next request."""

    def __init__(self, host: str, port: int, folder: str = API_DIR) -> None:
        self._host = host
        self._port = port
        self._folder = folder
        self._connection: http.client.HTTPSConnection | None = None

    @classmethod
    def from_pod(cls, environ: Mapping[str, str], folder: str = API_DIR) -> ApiServer:
        """Take the address from the environment.

        Raises:
            ClusterError: this is not a pod.
        """
        host = environ.get("KUBERNETES_SERVICE_HOST", "").strip("[]")
        port = environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or environ.get("KUBERNETES_SERVICE_PORT") or "443"
        if not host or not port.isdigit():
            raise ClusterError(
                "cannot read network-status outside of a pod: KUBERNETES_SERVICE_HOST is not set",
                fix="--address-source host:IFNAME --rank0 ADDRESS outside of Kubernetes",
            )
        return cls(host, int(port), folder)

    def namespace(self) -> str:
        """Return the pod's namespace from the service account's folder.

        Raises:
            ClusterError: it cannot be read.
        """
        return self._file("namespace")

    def get(self, ask: Ask) -> dict[str, Any] | None:
        """Return the response to a request, or None if the named pod does not exist.

        Raises:
            NotYetError: no response, or status 429 or 5xx; retry after ``seconds`` (Retry-After).
            ClusterError: the server refuses (401, 403), or the response is invalid.
        """
        token = self._file("token")  # the kubelet rotates it
        try:
            status, after, body = self._exchange(ask, token)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._unreached(error)
        if status == 404 and ask.name:
            return None
        if status != 200:
            self._refused(ask, status, after, body)
        try:
            answer = loads(body, max_size=LIMIT, max_depth=_DEPTH)
        except ValueError as error:
            raise ClusterError(f"invalid response of the API server to {ask}: {error}") from None
        if not isinstance(answer, dict):
            raise ClusterError(f"the API server's response to {ask} is not an object")
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, ask: Ask, token: str) -> tuple[int, str, bytes]:
        """Return (status, Retry-After, body), over the open connection or a new one."""
        deadline = time.monotonic() + _WHOLE_SECONDS
        headers = {
            "Accept": ask.accept,
            "Authorization": f"Bearer {token}",
            "User-Agent": "torchnet",
        }
        kept = self._connection is not None
        try:
            response = self._request(ask.target, headers)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise
            self.close()  # the server may close an idle connection
            response = self._request(ask.target, headers)
        body = bytearray()
        while part := response.read1(1 << 16):
            body += part
            if len(body) > LIMIT:
                self.close()
                raise ClusterError(f"the API server's response to {ask} is longer than {LIMIT:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError("the response takes too long")
        response.read()  # empty, but ends the response, as read1() does not; the next request needs that
        return response.status, response.headers.get("Retry-After", ""), bytes(body)

    def _request(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_SECONDS, context=self._context()
            )
        self._connection.request("GET", target, headers=headers)
        return self._connection.getresponse()

    def _context(self) -> ssl.SSLContext:
        path = os.path.join(self._folder, "ca.crt")
        try:
            context = ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise ClusterError(f"{path}: {_reason(error)}", fix=_VOLUME) from None
        # Python 3.13 enforces RFC 5280 strictly, which the certificate authorities of many clusters violate.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _file(self, name: str) -> str:
        path = os.path.join(self._folder, name)
        try:
            with open(path, encoding="ascii") as file:
                return file.read(LIMIT).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ClusterError(f"{path}: {_reason(error)}", fix=_VOLUME) from None

    def _unreached(self, error: Exception) -> None:
        where = f"[{self._host}]" if ":" in self._host else self._host
        text = f"cannot reach the API server {where}:{self._port}: {_reason(error)}"
        if isinstance(error, ssl.SSLCertVerificationError):
            raise ClusterError(text, fix="check that ca.crt belongs to this cluster") from None
        fix = "check that NetworkPolicies allow egress from this pod to the API server"
        raise NotYetError(ClusterError(text, fix=fix), _AGAIN_SECONDS) from None

    def _refused(self, ask: Ask, status: int, after: str, body: bytes) -> None:
        message = ""
        with contextlib.suppress(ValueError, AttributeError):
            message = str(loads(body, max_size=LIMIT, max_depth=_DEPTH).get("message", ""))
        text = f"the API server refused to {ask}: {status}" + (
            f" ({printable(message, 300)})" if message else ""
        )
        if status == 429 or status >= 500:
            raise NotYetError(ClusterError(text), _seconds(after))
        if status == 401:
            raise DeniedError(text, fix=_VOLUME)
        if status == 403:
            raise DeniedError(
                text,
                fix=f"give the pod's service account {ask.verb} on pods in {ask.namespace} (torchnet manifests rbac), "
                "use a service account that has it (--service-account NAME), or use fixed addresses (--static-ips)",
            )
        raise ClusterError(text)


class DeniedError(ClusterError):
    """401 or 403: permanent, unless the account or role is so new that not every API server knows it yet."""


_VOLUME = "mount the service account's token into the pod (a projected volume, or automountServiceAccountToken: true)"


def _reason(error: Exception) -> str:
    return printable(getattr(error, "strerror", "") or str(error) or type(error).__name__, 200)


def _seconds(after: str) -> float:
    """Parse Retry-After, seconds or a date, within limits."""
    seconds = _AGAIN_SECONDS
    if after.strip().isdigit():
        seconds = float(after)
    elif after:
        with contextlib.suppress(ValueError, TypeError):
            seconds = parsedate_to_datetime(after).timestamp() - time.time()
    return min(max(seconds, _AGAIN_SECONDS), _LONGEST_RETRY_SECONDS)


# The first label of this pod is used. Clusters with only unprefixed ones lack the index label (Kubernetes 1.28).
_JOB_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


@dataclass(frozen=True)
class PodMetadata:
    """The part of a pod's metadata that discovery uses; ``address`` only if the whole pod was requested."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: str
    ending: bool
    address: str = ""

    @classmethod
    def read(cls, value: Any) -> PodMetadata:
        """Parse one object of a response.

        Raises:
            ClusterError: it is not a pod.
        """
        data = value.get("metadata") if isinstance(value, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise ClusterError("the API server's response contains an item that is not a pod")
        status = value.get("status")
        address = status.get("podIP") if isinstance(status, dict) else None
        return cls(
            name=data["name"],
            labels=_texts(data.get("labels")),
            annotations=_texts(data.get("annotations")),
            created=str(data.get("creationTimestamp") or ""),
            ending=bool(data.get("deletionTimestamp")),
            address=canonical(address) or "" if isinstance(address, str) else "",
        )


def selector(own: PodMetadata) -> str:
    """Return the label selector of rank 0's pod, from this pod's labels.

    Raises:
        ClusterError: no label identifies it.
    """
    rank = NODE_RANK_LABEL if NODE_RANK_LABEL in own.labels else INDEX_LABEL
    for label in (RUN_LABEL, *_JOB_LABELS):
        if own.labels.get(label) and (rank in own.labels or label == RUN_LABEL):
            return f"{label}={own.labels[label]},{rank}=0"
    raise ClusterError(
        f"cannot determine rank 0's pod: {own.name} belongs to no Indexed Job and lacks the labels {RUN_LABEL} "
        f"and {NODE_RANK_LABEL}",
        fix=f"label the pods {RUN_LABEL}=NAME and {NODE_RANK_LABEL}=0, 1, …, or give the agents --rank0 ADDRESS",
    )


def newest(own: PodMetadata | None, pods: Sequence[PodMetadata]) -> PodMetadata | None:
    """Return rank 0's newest pod that is not terminating, of this pod's restart attempt if ``own`` is known."""
    live = [pod for pod in pods if not pod.ending]
    if own is not None:
        attempt = own.labels.get(ATTEMPT_LABEL)
        live = [pod for pod in live if pod.labels.get(ATTEMPT_LABEL) == attempt]
    return max(live, key=lambda pod: (pod.created, pod.name), default=None)


def _texts(value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in items if isinstance(text, str)}
