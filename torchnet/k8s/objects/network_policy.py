"""Network policies: which pods may connect to the workers, on eth0 and on the rails.

The PyTorch store has no authentication, and neither do the ports that Gloo and NCCL open, so only the run's own pods
are allowed. Policies are additive: a rule for any other source would allow what another policy of the namespace blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchnet.constants import POLICY_ANNOTATION, RUN_LABEL
from torchnet.network.attachment import NetworkAttachment


def rules(run_id: str) -> dict[str, Any]:
    """Return the spec of both kinds of policy: ingress from the run's own pods, on every port."""
    own = {"podSelector": {"matchLabels": {RUN_LABEL: run_id}}}
    return {**own, "policyTypes": ["Ingress"], "ingress": [{"from": [own]}]}


def policies(
    run_id: str, attachments: Sequence[NetworkAttachment], *, on_rails: bool
) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """Return (name, object without metadata, annotations) of each policy.

    With ``on_rails`` there is also a MultiNetworkPolicy for each attachment.
    """
    found: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        (run_id, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": rules(run_id)}, {})
    ]
    seen = set()
    for attachment in attachments:
        if on_rails and attachment.path not in seen:
            seen.add(attachment.path)
            body = {
                "apiVersion": "k8s.cni.cncf.io/v1beta1",
                "kind": "MultiNetworkPolicy",
                "spec": rules(run_id),
            }
            found.append((f"{run_id}-{attachment.interface}", body, {POLICY_ANNOTATION: attachment.path}))
    return found
