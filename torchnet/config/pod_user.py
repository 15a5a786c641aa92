"""The user that a pod's processes run as: ``--run-as`` and ``--fs-group``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

ASSIGNED = "namespace"
ID_LIMIT = 2**31 - 1
"""The largest user or group ID (k8s.io/apimachinery/pkg/util/validation: IsValidUserID)."""


@dataclass(frozen=True)
class PodUser:
    """User and groups of all containers of a pod. None leaves the field of the securityContext out.

    Attributes:
        uid: runAsUser.
        gid: runAsGroup.
        fs_group: fsGroup, the group of the pod's volumes.
    """

    uid: int | None = 1000
    gid: int | None = 1000
    fs_group: int | None = 1000

    @property
    def is_root(self) -> bool:
        """Whether the processes run as root. False if the uid is assigned: the pod then requires another one."""
        return self.uid == 0


DEFAULT_USER = PodUser()


def parse_id(value: object) -> int:
    """Parse the number of a user or group."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch("[0-9]{1,10}", text.strip()):
        raise ValueError("is not the number of a user or group")
    if int(text) > ID_LIMIT:
        raise ValueError(f"is larger than {ID_LIMIT}")
    return int(text)


def parse_run_as(value: object) -> str:
    """Parse ``UID[:GID]`` or ``namespace``; return it in its shortest form."""
    if value == ASSIGNED:
        return ASSIGNED
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("is not UID[:GID] or namespace")
    user, colon, group = text.strip().partition(":")
    try:
        ids = [parse_id(user), *([parse_id(group)] if colon else [])]
    except ValueError as error:
        raise ValueError(f"has a part that {error}") from None
    return ":".join(map(str, ids))


def pod_user(run_as: str | None, fs_group: int | None) -> PodUser:
    """Return the user for the result of `parse_run_as` and the number of ``--fs-group``; None is the default.

    Without GID, the group has the number of the user: without a group, Kubernetes takes the one of the image's user,
    or root's. Without ``fs_group``, volumes belong to that group, too. root needs none: it would only change the owner
    of all files.
    """
    if run_as is None:
        return DEFAULT_USER if fs_group is None else replace(DEFAULT_USER, fs_group=fs_group)
    if run_as == ASSIGNED:
        return PodUser(None, None, fs_group)
    user, colon, group = run_as.partition(":")
    uid, gid = int(user), int(group if colon else user)
    own = None if uid == 0 else gid
    return PodUser(uid, gid, own if fs_group is None else fs_group)
