"""rbac: what an administrator can grant once; a launch by a user with the built-in role ``edit`` needs none of it.

The account is for pods of one's own with ``torchnet agent`` or ``torchnet env``, and for clusters without DNS. Neither
``view``, ``edit`` nor ``admin`` can read attachments.
"""

from __future__ import annotations

from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.objects.builders import binding, discovery_rules, role, rule, service_account
from torchnet.yaml_io import Manifest

ACCOUNT = "torchnet"
VIEW = "torchnet-view-networks"

HEAD = """\
Permission to read network attachments, and a service account that may read the namespace's pods.

torchnet launch needs neither: it then cannot report a missing attachment before the start. The account is for
torchnet agent and torchnet env in pods of your own, and with --service-account torchnet for clusters without DNS."""


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
