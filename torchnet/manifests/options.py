"""What the manifests depend on, and the words that its values are chosen from."""

from __future__ import annotations

from dataclasses import dataclass

from torchnet.manifests.ranges import Network, parse_range

MULTUS, WHEREABOUTS, BACKEND = "multus-install", "whereabouts-install", "backend-network"
EXAMPLE, RBAC = "pytorch-pod-example", "rbac"
NAMES = (MULTUS, WHEREABOUTS, BACKEND, EXAMPLE, RBAC)
# The files' names without their ending, and the short ones.
ALIASES = {"multus": MULTUS, "whereabouts": WHEREABOUTS, "backend-network-nad": BACKEND}

MODES = {"ipvlan": ("l2", "l3", "l3s"), "macvlan": ("bridge", "private", "vepa"), "bridge": ()}
IPAMS = ("whereabouts", "host-local", "static")
ROUTED = ("l3", "l3s")  # modes in which the node routes, and pods answer no neighbour discovery
RANGE = parse_range("fcbb:0:800:ffff::/64")


@dataclass(frozen=True)
class Options:
    """What the manifests depend on; the defaults are those of the files in manifests/.

    Args:
        registry: where the images are mirrored (``registry.example.com/mirror``); None: where they come from.
        image: of the example's pods; None: `torchnet.manifests.images.PYTORCH`, below ``registry``.
        kind, mode: how net1 is made: ``ipvlan`` l2, l3 or l3s, ``macvlan`` bridge, private or vepa, ``bridge``.
        master: the node's card; bridge: the node's bridge, for ``kind`` bridge, which has no master.
        range: the backend's network; exclude: parts of it that Whereabouts leaves alone.
        ipam: whereabouts, host-local or static. slices: (node, part of the range), for host-local.
        mtu: in bytes; None: the master's.
        log_file: on each node, where Whereabouts logs its allocations; None: nowhere.
        namespace: of the attachment, the example's pods, or the service account.
        name: of the attachment. network: (namespace, name) of the attachment that the example's pods use.
        workers: of the example, beside pytorch-training.
    """

    registry: str | None = None
    image: str | None = None
    kind: str = "ipvlan"
    mode: str = "l2"
    master: str = "ens5"
    bridge: str = "br-backend"
    range: Network = RANGE
    exclude: tuple[Network, ...] = ()
    ipam: str = "whereabouts"
    slices: tuple[tuple[str, Network], ...] = ()
    mtu: int | None = None
    log_file: str | None = None
    namespace: str = "default"
    name: str = "backend-network"
    network: tuple[str, str] = ("default", "backend-network")
    workers: int = 2
