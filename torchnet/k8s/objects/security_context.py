"""The security contexts of pods and containers. Without ``--rdma`` and ``--run-as 0``, Pod Security "restricted" holds.

The ids of ``--run-as namespace`` are left out: OpenShift's security context constraints, or an admission policy, assign
them. The pod still requires a user other than root, so that an image of root is rejected if nobody assigns one.
"""

from __future__ import annotations

from typing import Any

from torchnet.config.pod_user import PodUser

RESTRICTED: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""The security context of a container that Pod Security "restricted" requires."""


def pod_context(user: PodUser) -> dict[str, Any]:
    """Return the security context of a pod."""
    ids = {"runAsUser": user.uid, "runAsGroup": user.gid, "fsGroup": user.fs_group}
    return {
        **({} if user.is_root else {"runAsNonRoot": True}),
        **{field: number for field, number in ids.items() if number is not None},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_context(user: PodUser, *, locks_memory: bool = False) -> dict[str, Any]:
    """Return the security context of a container.

    Args:
        locks_memory: Add IPC_LOCK, with which a process may lock any amount of memory. An added capability takes
            effect for root. For other users it takes effect only in a program that has it as a file capability, which
            the kernel ignores unless the container may escalate privileges; all other capabilities are dropped.
    """
    if not locks_memory:
        return RESTRICTED
    return {
        "allowPrivilegeEscalation": not user.is_root,
        "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]},
    }


def secret_mode(user: PodUser) -> int:
    """Return the mode of the files of Secrets.

    root owns them, and their group is fsGroup. If nobody sets that, a process reads them as others do. Only this pod's
    containers can reach the files, and they all run as the same user.
    """
    return 0o444 if user.fs_group is None and not user.is_root else 0o440
