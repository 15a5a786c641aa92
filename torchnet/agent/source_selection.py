"""Which address source, and which endpoint of the rendezvous, the flags of ``torchnet agent`` select.

Imports of what asks the API or name servers are local: few workers need http and ssl (0.03 s).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from torchnet import constants
from torchnet.agent.handover import Handover, HandoverSource
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError, UsageError
from torchnet.network.address_sources import (
    AddressSource,
    HostInterfaces,
    MultusStatus,
    StaticAddresses,
    parse_source,
)
from torchnet.network.host_networks import HostBackend, HostNetwork, select_backend
from torchnet.network.network_status import StatusEntry

if TYPE_CHECKING:
    from torchnet.agent.rank0_lookup import Lookup
    from torchnet.agent.rendezvous import Endpoint

_STATUS_LIMIT = 2 << 20  # bytes; the parser rejects more than half of it, with its own message


def host_parts(options: argparse.Namespace) -> list[HostNetwork]:
    return [one for one in options.network if one.kind == "host"]


def _host_backend(options: argparse.Namespace) -> HostBackend:
    """Return the interfaces of ``--network host:``; none without it.

    Raises:
        NetworkError: this host does not have the network.
    """
    hosts = host_parts(options)
    if not hosts:
        return HostBackend()
    from torchnet.linux import rtnetlink

    try:
        present = rtnetlink.interfaces()
    except OSError as error:
        raise NetworkError(f"cannot list the network interfaces: {error.strerror or error}") from None
    return select_backend(hosts, present, ())


def address_source(options: argparse.Namespace) -> str:
    return options.address_source or os.environ.get("TORCHNET_ADDRESS_SOURCE", "multus-status")


def source_of(options: argparse.Namespace, spec: AgentSpec) -> AddressSource:
    """Return the address source that the flags select.

    Raises:
        TorchnetError: the flags or the environment are unusable.
    """
    rank0 = tuple(filter(None, options.rank0.split(",")))
    backend = _host_backend(options)
    text = f"host:{','.join(backend.interfaces)}" if backend.interfaces else address_source(options)
    kind = parse_source(text).kind
    by_pod = bool(options.rank0_names) or (kind == "host" and bool(options.rank0_labels))
    joins = spec.phase != "prepare"
    if kind != "multus-status" and not rank0 and spec.node_rank and not by_pod and joins:
        raise UsageError("rank 0's address is not set", fix="--rank0 ADDRESS")
    if kind == "host":
        return HostInterfaces(text, rank0, backend.networks)
    if kind == "static":
        return StaticAddresses(text, rank0, spec.attachments)
    if options.status_dir:
        from torchnet.agent.discovery import sure_attachments

        return _by_status_dir(options, spec, lambda: sure_attachments(spec))
    if not options.status_file:
        return _by_api(spec, options.rank0_labels)
    other = options.rank0_status_file or (options.status_file if not (spec.node_rank and joins) else None)
    if other is None:
        raise UsageError(
            "--status-file requires --rank0-status-file on ranks other than 0", fix="--rank0-status-file FILE"
        )
    return MultusStatus(read(options.status_file), lambda: read(other), spec.attachments, family=spec.family)


def frontend_of(options: argparse.Namespace, spec: AgentSpec) -> Endpoint | None:
    """Return where the rendezvous takes place if that is at rank 0's pod; None: over the backend.

    Raises:
        UsageError: this pod does not know its own address or namespace.
    """
    by_api = spec.network == "host" and options.rank0_labels and "KUBERNETES_SERVICE_HOST" in os.environ
    if options.rank0 or not (options.rank0_names or by_api):
        return None
    from torchnet.agent.rank0_lookup import PodEndpoint

    own = os.environ.get(constants.POD_IP_VARIABLE, "")
    if not own and (options.rank0_names or spec.node_rank == 0):
        raise UsageError(
            "this pod's address is not set",
            fix=f"set {constants.POD_IP_VARIABLE} by the downward API (fieldRef status.podIP)",
        )
    return PodEndpoint(own, lookup=_rank0_lookup(options, own) if spec.node_rank else None)


def _rank0_lookup(options: argparse.Namespace, own: str) -> Lookup:
    """Return the source of rank 0's address: by name, else by the API if this pod has an account's token."""
    api: Lookup | None = None
    if not options.rank0_names or (
        options.rank0_labels and os.path.exists(os.path.join(constants.API_DIR, "token"))
    ):
        from torchnet.agent.kube_api import ApiServer
        from torchnet.agent.pod_address_source import Own, PodIPLookup

        server = ApiServer.from_pod(os.environ)
        namespace = os.environ.get("POD_NAMESPACE") or server.namespace()
        api = PodIPLookup(server, Own(namespace, os.environ.get("POD_NAME", ""), rank0=options.rank0_labels))
        if not options.rank0_names:
            return api
    from torchnet.agent.dns_client import NameServers
    from torchnet.agent.rank0_lookup import ServiceLookup

    namespace = os.environ.get("POD_NAMESPACE", "")
    if not namespace:
        raise UsageError(
            "--rank0-names requires this pod's namespace",
            fix="set POD_NAMESPACE by the downward API (fieldRef metadata.namespace)",
        )
    names = tuple(filter(None, options.rank0_names.split(",")))
    return ServiceLookup(names, namespace, 6 if ":" in own else 4, NameServers.from_file(), api)


def _by_status_dir(
    options: argparse.Namespace, spec: AgentSpec, seen: Callable[[], tuple[StatusEntry, ...] | None]
) -> AddressSource:
    from torchnet.agent.status_dir import StatusDirSource

    pod = os.environ.get("POD_NAME", spec.name), os.environ.get("POD_NAMESPACE", "")
    return StatusDirSource(options.status_dir, pod, spec.attachments, seen, family=spec.family)


def _by_api(spec: AgentSpec, rank0_labels: str) -> AddressSource:
    """Read addresses through the API. Imports are local: few workers need http and ssl (0.03 s)."""
    from torchnet.agent.discovery import sure_attachments
    from torchnet.agent.kube_api import ApiServer
    from torchnet.agent.pod_address_source import Own, PodSource
    from torchnet.linux import rtnetlink

    def address() -> str:
        try:
            present = rtnetlink.interfaces()
        except OSError as error:
            text = f"cannot list the network interfaces: {error.strerror or error}"
            raise NetworkError(
                text, fix="set POD_NAME by the downward API (fieldRef metadata.name)"
            ) from None
        found = present["eth0"].addresses if "eth0" in present else ()
        return next((a.ip for a in found if a.scope == "global"), "")

    api = ApiServer.from_pod(os.environ)
    environ = os.environ
    own = Own(
        namespace=environ.get("POD_NAMESPACE") or api.namespace(),
        name=environ.get("POD_NAME", ""),
        hostname=environ.get("HOSTNAME", ""),
        address=address,
        # The other workers rely on rank 0's network-status, so rank 0 always compares it with the kernel.
        seen=lambda: sure_attachments(spec) if spec.node_rank else None,
        rank0=rank0_labels,
    )
    return PodSource(api, own, spec.attachments, family=spec.family)


def prepared_source(
    options: argparse.Namespace, spec: AgentSpec, state: Handover, frontend: Endpoint | None
) -> AddressSource:
    """Return the training container's address source.

    Raises:
        TorchnetError: the flags or the environment are unusable.
    """
    if options.status_dir:
        return _by_status_dir(options, spec, lambda: state.attachments)
    return HandoverSource(state, source_of(options, spec) if frontend is None and spec.node_rank else None)


def read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_STATUS_LIMIT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix="check that the volume is mounted there") from error
