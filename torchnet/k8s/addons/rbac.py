"""rbac: what an administrator grants once, so that users with the built-in role ``edit`` can launch jobs.

The built-in role ``edit`` cannot write a Role or RoleBinding, only ``admin`` can. Neither ``view``, ``edit`` nor
``admin`` can read attachments.
"""

from __future__ import annotations

from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.objects.builders import binding, discovery_rules, role, rule, service_account
from torchnet.yaml_io import Manifest

ACCOUNT = "torchnet"
VIEW = "torchnet-view-networks"

HEAD = """\
The service account with which the workers find each other, and permission to read network attachments.

Users with the role edit in the namespace launch with --service-account torchnet. Without it, torchnet creates these
objects for each run, which requires the role admin. Runs with fixed addresses need none of them."""


def manifests(options: Options) -> list[Manifest]:
    """Return account, role and binding in the namespace, and a role that lets ``view`` read attachments.

    It is aggregated to ``view``, and so to ``edit`` and ``admin``, in all namespaces.
    """
    namespace = options.namespace
    view = role(
        VIEW, [rule(["k8s.cni.cncf.io"], ["network-attachment-definitions"], ["get", "list", "watch"])]
    )
    view["metadata"]["labels"] = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    return [
        Manifest(service_account(ACCOUNT, namespace)),
        Manifest(role(ACCOUNT, discovery_rules(), namespace)),
        Manifest(binding(ACCOUNT, ACCOUNT, (ACCOUNT, namespace), namespace)),
        Manifest(
            view, {"": "Users with the role view, edit or admin in a namespace can read its attachments."}
        ),
    ]
