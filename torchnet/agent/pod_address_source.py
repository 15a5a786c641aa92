"""The address source in a pod: network-status of this pod and of rank 0's, from the API server.

Each worker sends one request, for metadata only. Rank 0 requests its own pod, since the others rely on its status. The
others request rank 0's pod, again only while it does not exist, has no status or does not respond. They request their
own pod only if the kernel does not determine its addresses. A response has 7 KB, mostly managedFields.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torchnet.agent.kube_api import ApiServer, Ask, DeniedError, PodMetadata, newest, selector
from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION
from torchnet.errors import ClusterError, NetworkError, NotYetError, TorchnetError
from torchnet.network.address_sources import MultusStatus
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Family
from torchnet.network.network_status import StatusEntry, missing_status
from torchnet.text import printable

_LIVE = "status.phase!=Failed,status.phase!=Succeeded"

_STATUS_SECONDS = 5.0  # the status exists before a pod's first container starts, but caches may lag
_RIGHTS_SECONDS = 6.0  # for a new role binding to reach every API server
_FIRST_SECONDS, _LAST_SECONDS = 0.4, 6.0  # between two requests
_FRESH_SECONDS = 3.0  # until an address that does not respond is requested again


@dataclass(frozen=True)
class Own:
    """The identity of this pod; ``address`` returns its address on eth0, for use if no name matches.

    ``seen`` returns the attachments if the kernel alone determines them, else None; ``rank0`` is the label selector of
    rank 0's pod, if given.
    """

    namespace: str
    name: str = ""
    hostname: str = ""
    address: Callable[[], str] = field(default=lambda: "")
    seen: Callable[[], tuple[StatusEntry, ...] | None] = field(default=lambda: None)
    rank0: str = ""


class PodSource:
    """Addresses from the annotation, by API. Both methods raise NotYetError while a retry may help."""

    def __init__(
        self,
        api: ApiServer,
        own: Own,
        attachments: tuple[NetworkAttachment, ...] = (),
        *,
        family: Family = "auto",
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._own = own
        self._wanted = attachments
        self._family = family
        self._clock = clock
        self._pace = _Pace(chance)
        self._since: dict[str, float] = {}
        self._pod: PodMetadata | None = None  # with its status
        self._found: PodMetadata | None = None
        self._rank0: tuple[str, ...] = ()
        self._why: NotYetError | None = None
        self._next = 0.0

    def attachments(self) -> tuple[StatusEntry, ...]:
        if self._pod is None:
            if (seen := self._own.seen()) is not None:
                return seen
            self._found = pod = self._retry_later(self._find)
            if pod.annotations.get(STATUS_ANNOTATION) is None:
                raise self._no_status(pod)
            self._pod = pod
            self._pace.again()
        status = self._pod.annotations[STATUS_ANNOTATION]
        return MultusStatus(status, None, self._wanted, family=self._family).attachments()

    def rank0(self) -> tuple[str, ...]:
        now = self._clock()
        if now < self._next:  # requested a moment ago
            if self._rank0:
                return self._rank0
            if self._why is not None:
                raise NotYetError(self._why.error, self._next - now)
        try:
            self._rank0 = self._retry_later(self._ask_rank0)
        except NotYetError as error:
            self._rank0, self._why = (), error
            self._next = now + error.seconds
            raise
        self._next = now + _FRESH_SECONDS + self._pace.step()
        return self._rank0

    @property
    def known_rank0(self) -> tuple[str, ...]:
        """Rank 0's addresses by the last request; () if they are not known."""
        return self._rank0

    def _ask_rank0(self) -> tuple[str, ...]:
        pod = self._rank0_pod()
        if pod.annotations.get(STATUS_ANNOTATION) is None:
            raise self._later(
                NetworkError(f"rank 0's pod {pod.name} has no network-status yet", fix=_see(pod, self._own))
            )
        status = pod.annotations[STATUS_ANNOTATION]
        return MultusStatus(None, status, self._wanted, family=self._family).rank0()

    def _rank0_pod(self, *, whole: bool = False) -> PodMetadata:
        labels = self._own.rank0
        if not labels:
            self._found = self._found or self._find()
            labels = selector(self._found)
        ask = Ask(self._own.namespace, labels=labels, fields=_LIVE, whole=whole)
        found = (self._api.get(ask) or {}).get("items")
        pods = [PodMetadata.read(item) for item in (found if isinstance(found, list) else [])]
        pod = newest(self._found, pods)
        if pod is None:
            text = f"rank 0's pod does not exist yet ({printable(ask.labels, 200)} in {self._own.namespace})"
            raise self._later(
                NetworkError(text, fix=f"kubectl get pods -n {self._own.namespace} -l '{ask.labels}'")
            )
        return pod

    def _find(self) -> PodMetadata:
        """Find this pod by its name, by the host name (usually the same), or by its address."""
        for name in dict.fromkeys(filter(None, (self._own.name, self._own.hostname))):
            found = self._api.get(Ask(self._own.namespace, name))
            if found is not None:
                return PodMetadata.read(found)
        address = self._own.address()
        ask = Ask(self._own.namespace, fields=f"status.podIP={address}")
        items = (self._api.get(ask) or {}).get("items") if address else None
        pods = [PodMetadata.read(item) for item in (items if isinstance(items, list) else [])]
        live = [pod for pod in pods if not pod.ending] or pods
        if len(live) == 1:
            return live[0]
        name = printable(self._own.name or self._own.hostname, 80)
        error = ClusterError(
            f"cannot find this pod in namespace {self._own.namespace}: no pod has the name {name}, and {len(live)} "
            f"have the address {address or 'of eth0'}",
            fix="set POD_NAME by the downward API (fieldRef metadata.name)",
        )
        raise self._for_a_while("own", _STATUS_SECONDS, error)

    def _no_status(self, pod: PodMetadata) -> TorchnetError:
        requested = pod.annotations.get(NETWORKS_ANNOTATION)
        return self._for_a_while(
            "status", _STATUS_SECONDS, missing_status(pod.name, self._own.namespace, requested)
        )

    def _retry_later(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except DeniedError as error:
            raise self._for_a_while("rights", _RIGHTS_SECONDS, error) from None
        except NotYetError as error:
            if isinstance(error.error, ClusterError):  # Retry-After, with backoff
                raise NotYetError(error.error, max(error.seconds, self._pace.step())) from None
            raise

    def _for_a_while(self, what: str, seconds: float, error: TorchnetError) -> TorchnetError:
        """Return NotYetError until ``seconds`` after the first time, then the error itself."""
        since = self._since.setdefault(what, self._clock())
        return self._later(error) if self._clock() - since < seconds else error

    def _later(self, error: TorchnetError) -> NotYetError:
        return NotYetError(error, self._pace.step())


class PodIPLookup(PodSource):
    """Rank 0's address on the primary network, by the API; for pods whose rendezvous takes place there.

    Args of ``own``: ``rank0``, the label selector of rank 0's pod, is required.
    """

    def _ask_rank0(self) -> tuple[str, ...]:
        pod = self._rank0_pod(whole=True)
        if not pod.address:
            error = NetworkError(f"rank 0's pod {pod.name} has no address yet", fix=_see(pod, self._own))
            raise self._later(error)
        return (pod.address,)


class _Pace:
    """Backoff with jitter, so that many workers do not send requests at the same time."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.again()

    def again(self) -> None:
        self._seconds = _FIRST_SECONDS

    def step(self) -> float:
        seconds = self._seconds * (0.75 + 0.5 * self._chance())
        self._seconds = min(self._seconds * 1.7, _LAST_SECONDS)
        return seconds


def _see(pod: PodMetadata, own: Own) -> str:
    return f"kubectl describe pod {pod.name} -n {own.namespace}"
