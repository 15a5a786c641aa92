"""The address source of pods in their hosts' network: interfaces by name, and rank 0's pod by API.

Rank 0's backend address is not known before the rendezvous, which therefore takes place at the pod's address, the
host's primary one. The peer table then has the backend's addresses, and the preflight checks them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchnet.agent.kube_api import ApiServer, PodMetadata
from torchnet.agent.pod_address_source import Own, PodSource
from torchnet.agent.rendezvous import Endpoint
from torchnet.errors import NetworkError
from torchnet.linux.rtnetlink import family_of
from torchnet.network.address_sources import HostInterfaces
from torchnet.network.network_status import StatusEntry


class HostPodSource(PodSource):
    """Addresses of pods with ``hostNetwork``.

    Args:
        spec: ``host:IFNAME[,IFNAME…]``.
        own: with the label selector of rank 0's pod.
        networks: as for `HostInterfaces`.
    """

    def __init__(
        self, api: ApiServer, own: Own, spec: str, networks: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(api, own, **more)
        self._interfaces = HostInterfaces(spec, (), networks)

    def attachments(self) -> tuple[StatusEntry, ...]:
        return self._interfaces.attachments()

    def _ask_rank0(self) -> tuple[str, ...]:
        pod = self._rank0_pod(whole=True)
        if not pod.address:
            raise self._later(NetworkError(f"rank 0's pod {pod.name} has no address yet", fix=self._see(pod)))
        return (pod.address,)

    def _see(self, pod: PodMetadata) -> str:
        return f"kubectl describe pod {pod.name} -n {self._own.namespace}"


@dataclass(frozen=True)
class PodEndpoint(Endpoint):
    """Where rank 0's rendezvous listens: at its pod's address, requested for each connection.

    Attributes:
        host: This pod's own address on rank 0; elsewhere it is not used.
        source: None on rank 0.
    """

    source: HostPodSource | None = None

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        host = self.host if self.source is None else self.source.rank0()[0]
        return [(socket.AddressFamily(family_of(host)), (host, self.port))]

    @property
    def known_host(self) -> str:
        return self.host if self.source is None else next(iter(self.source.known_rank0), "")

    def __str__(self) -> str:
        return "rank 0's pod" if self.source else super().__str__()
