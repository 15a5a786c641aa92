"""Who may reach the workers, on eth0 and on the rails.

PyTorch's store has no authentication, and the join's port should not be open to everybody either; both have ports from
one documented range. A policy has no deny, so everything around that range is allowed instead.
"""

from __future__ import annotations

from typing import Any

from torchnet.names import POLICY_ANNOTATION, PORT_FIRST, PORT_LAST, RUN_LABEL, rail_interface
from torchnet.render.attachments import Rail

_PROTOCOLS = ("TCP", "UDP", "SCTP")


def rules(run_id: str) -> dict[str, Any]:
    """Of both kinds of policy: the run's own pods at every port, everybody else at all but ours."""
    own = {"podSelector": {"matchLabels": {RUN_LABEL: run_id}}}
    around = [
        {"protocol": protocol, "port": first, "endPort": last}
        for protocol in _PROTOCOLS
        for first, last in ((1, PORT_FIRST - 1), (PORT_LAST + 1, 65535))
    ]
    return {**own, "policyTypes": ["Ingress"], "ingress": [{"from": [own]}, {"ports": around}]}


def policies(
    run_id: str, rails: list[Rail], *, on_rails: bool
) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """(name, object without metadata, annotations) of each policy; one for each attachment where ``on_rails``."""
    found: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        (run_id, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": rules(run_id)}, {})
    ]
    seen = set()
    for number, rail in enumerate(rails):
        attachment = f"{rail.namespace}/{rail.name}"
        if on_rails and attachment not in seen:
            seen.add(attachment)
            body = {
                "apiVersion": "k8s.cni.cncf.io/v1beta1",
                "kind": "MultiNetworkPolicy",
                "spec": rules(run_id),
            }
            found.append((f"{run_id}-{rail_interface(number)}", body, {POLICY_ANNOTATION: attachment}))
    return found
