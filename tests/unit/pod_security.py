"""Pod Security Standards: what "restricted" and "baseline" refuse in a pod's spec, as the admission plugin does.

After https://kubernetes.io/docs/concepts/security/pod-security-standards/ of 1.34, written anew and only as far as
Linux pods of ours can go; the real API server is asked in tests/cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RESTRICTED_VOLUMES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ),
}
BASELINE_CAPABILITIES = {
    *(
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
    ),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"], *spec.get("ephemeralContainers", ())]


def baseline(spec: dict[str, Any]) -> Iterator[str]:
    """What the level baseline refuses."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", ()):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls"
    for one in containers(spec):
        context = one.get("securityContext", {})
        if context.get("privileged"):
            yield f"{one['name']} is privileged"
        added = set(context.get("capabilities", {}).get("add", ()))
        if added - BASELINE_CAPABILITIES:
            yield f"{one['name']} adds {sorted(added - BASELINE_CAPABILITIES)}"
        if any("hostPort" in port for port in one.get("ports", ())):
            yield f"{one['name']} has a hostPort"
        if (
            context.get("seccompProfile", {}).get("type") == "Unconfined"
            or context.get("procMount", "Default") != "Default"
        ):
            yield f"{one['name']} is unconfined"


def restricted(spec: dict[str, Any]) -> Iterator[str]:
    """What the level restricted refuses."""
    yield from baseline(spec)
    pod = spec.get("securityContext", {})
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= RESTRICTED_VOLUMES or len(kinds) != 1:
            yield f"volume {volume['name']} is {sorted(kinds)}"
    for one in containers(spec):
        own = one.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{one['name']} may escalate"
        if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
            yield f"{one['name']} may be root"
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield f"{one['name']} is root"
        if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in (
            "RuntimeDefault",
            "Localhost",
        ):
            yield f"{one['name']} has no seccomp profile"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {
            "NET_BIND_SERVICE"
        }:
            yield f"{one['name']} keeps capabilities"
