"""What the lab is made of, beside the test cluster's parts: each version once."""

from __future__ import annotations

PLUGINS_MODULE = "github.com/containernetworking/plugins"
PLUGINS_VERSION = "v1.9.1"
# Program -> the module's package.
PLUGINS = {
    "bridge": "plugins/main/bridge",
    "ipvlan": "plugins/main/ipvlan",
    "loopback": "plugins/main/loopback",
    "macvlan": "plugins/main/macvlan",
    "host-local": "plugins/ipam/host-local",
    "static": "plugins/ipam/static",
    "portmap": "plugins/meta/portmap",
    "tuning": "plugins/meta/tuning",
}

KERNEL = "/usr/bin/linux.uml"
MODULES = "/usr/lib/uml/modules"
# Program -> the Debian package that has it.
DEBIAN_PROGRAMS = {KERNEL: "user-mode-linux"}
