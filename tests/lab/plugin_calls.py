"""Runs on a node: call the plugins of configurations as Multus and libcni do, each for a network namespace of its own.

It reads a JSON list of objects with ``name``, ``config`` (text) and ``ips`` (what the pod's annotation requests), and
writes a list of objects: ``ADD``, ``CHECK``, ``DEL`` with the plugin's error, "" without one; ``result``, what the last
plugin printed; ``net1``, the interface as the kernel has it.

Sources: CNI specification 1.1.0; libcni v1.3.0, libcni/api.go; multus-cni v4.3.0, pkg/types/conf.go
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PLUGINS = Path("/opt/cni/bin")
WITHOUT_CHECK = ("", "0.1.0", "0.2.0", "0.3.0", "0.3.1")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


class Refused(Exception):
    """What a plugin, or libcni, says."""


def run(*command: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=check, **more)


class Attachment:
    """A configuration for one pod."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self._pod, self._ips = sample["name"], sample["ips"]
        self._prev: dict[str, Any] | None = None
        body = json.loads(sample["config"])
        self._plugins = [body] if body.get("type") else body.get("plugins")
        # Multus gives a configuration without a name that of the attachment.
        self._head = {"name": body.get("name") or self._pod, "cniVersion": body.get("cniVersion", "")}
        if not _NAME.fullmatch(str(self._head["name"])):
            raise Refused(f"libcni: invalid network name {self._head['name']!r}")
        if not self._plugins or any(not one.get("type") for one in self._plugins):
            raise Refused("libcni: a plugin without a type, or no plugins")

    def add(self) -> dict[str, Any]:
        for one in self._plugins:
            self._prev = json.loads(self._call("ADD", one))
        return self._prev or {}

    def check(self) -> None:
        if self._head["cniVersion"] not in WITHOUT_CHECK:  # libcni refuses to
            for one in self._plugins:
                self._call("CHECK", one)

    def delete(self) -> None:
        for one in reversed(self._plugins):
            self._call("DEL", one)

    def clean(self) -> None:
        """What `delete` has left: libcni ends at the first plugin that fails, and with it the address stays leased."""
        for one in reversed(self._plugins):
            with contextlib.suppress(Refused):
                self._call("DEL", one)

    def _call(self, command: str, plugin: dict[str, Any]) -> str:
        config = {**plugin, **self._head}
        if self._ips and plugin.get("capabilities", {}).get("ips"):
            config["runtimeConfig"] = {"ips": self._ips}
        if self._prev is not None:
            config["prevResult"] = self._prev
        program = PLUGINS / plugin["type"]
        if not program.is_file():
            raise Refused(f"failed to find plugin {plugin['type']!r}")
        of_pod = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={self._pod}"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self._pod,
            "CNI_NETNS": f"/run/netns/{self._pod}",
            "CNI_IFNAME": "net1",
            "CNI_PATH": str(PLUGINS),
            "CNI_ARGS": of_pod,
        }
        done = run(
            str(program), check=False, input=json.dumps(config), env=os.environ | environment, timeout=60
        )
        if done.returncode:
            raise Refused(f"{plugin['type']}: {done.stdout or done.stderr}")
        return done.stdout


def try_one(sample: dict[str, Any]) -> dict[str, Any]:
    """Make the namespace, add, look, check, delete."""
    name = sample["name"]
    found: dict[str, Any] = {"name": name, "ADD": "", "CHECK": "", "DEL": "", "result": {}, "net1": {}}
    run("ip", "netns", "add", name)
    # Duplicate address detection would take more than a second of each.
    run("ip", "netns", "exec", name, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
    step = "ADD"
    try:
        attachment = Attachment(sample)
        try:
            found["result"] = attachment.add()
            shown = run("ip", "-n", name, "-d", "-json", "address", "show", "dev", "net1")
            found["net1"] = json.loads(shown.stdout)[0]
            step = "CHECK"
            attachment.check()
        finally:
            try:
                attachment.delete()
            except Refused as error:
                found["DEL"] = str(error)
                attachment.clean()
    except (Refused, subprocess.SubprocessError) as error:
        found[step] = str(error)
    finally:
        run("ip", "netns", "delete", name, check=False)
        run("ip", "link", "delete", "br-lab", check=False)
    return found


if __name__ == "__main__":
    json.dump([try_one(sample) for sample in json.load(sys.stdin)], sys.stdout)
