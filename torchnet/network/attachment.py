"""A network attachment: one backend network of a job, from ``--network`` to the receipt.

Source:
    Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard", v1.3
"""

from __future__ import annotations

from dataclasses import dataclass

from torchnet.constants import LOCAL_PREFIXES, rail_interface


@dataclass(frozen=True)
class NetworkAttachment:
    """A NetworkAttachmentDefinition, and the interface that it adds to each worker.

    Attributes:
        namespace: "" for the run's namespace, or where only the name is known.
        interface: "" if the attachment's name alone identifies it.
        resource: The device plugin's resource that each pod requests with it; "" without a resource.
    """

    namespace: str
    name: str
    interface: str = ""
    resource: str = ""

    @classmethod
    def parse(cls, text: str) -> NetworkAttachment:
        """Parse the form that ``str()`` returns."""
        path, _, interface = text.partition("@")
        namespace, _, name = path.rpartition("/")
        return cls(namespace, name, interface)

    @property
    def path(self) -> str:
        """``NAMESPACE/NAME``, as in network-status; NAME alone without a namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.path}@{self.interface}" if self.interface else self.path


# The attachments of the local networks' rails, as their network-status names them.
LOCAL = tuple(
    NetworkAttachment(
        "default", f"backend-network-{rail + 1}" if rail else "backend-network", rail_interface(rail)
    )
    for rail in range(len(LOCAL_PREFIXES))
)
