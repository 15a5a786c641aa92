"""network-policy: the egress on eth0 that torchnet's pods need in a namespace that denies it by default.

Policies are additive, so this one complements a default-deny policy. Where there is none, it would itself deny
everything else, such as downloads of the scripts: a pod that a policy selects has only what some rule allows.
Ingress needs no such policy: ``torchnet launch`` creates one for each run (``--network-policy isolate``).
"""

from __future__ import annotations

from torchnet.constants import COMMON_LABELS
from torchnet.k8s.addons.addon_options import Options
from torchnet.yaml_io import Manifest

NAME = "torchnet-egress"
HEAD = """\
Egress that torchnet's pods need on eth0: to each other, and to DNS. For namespaces in which a NetworkPolicy denies
egress by default. In other namespaces, this policy would deny the pods all other egress."""

_NOTES = {
    "spec.egress[1]": "DNS. OpenShift's DNS pods listen on port 5353. A DNS cache on the node (NodeLocal DNSCache) "
    "additionally needs an ipBlock with its address."
}


def manifests(options: Options) -> list[Manifest]:
    """Return the policy, for all runs of the namespace."""
    own = {"podSelector": {"matchLabels": dict(COMMON_LABELS)}}
    ports = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NAME, "namespace": options.namespace},
        "spec": {
            **own,
            "policyTypes": ["Egress"],
            "egress": [{"to": [own]}, {"to": [{"namespaceSelector": {}}], "ports": ports}],
        },
    }
    return [Manifest(body, _NOTES)]
