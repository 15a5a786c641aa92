"""CoreDNS: built with the plugins that the cluster uses, and its configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster import golang
from tests.cluster.places import DNS_ADDRESS, KUBECONFIG
from tests.cluster.shell import run
from tests.cluster.versions import COREDNS_MODULE, COREDNS_VERSION, GO_MODULES

PLUGINS = (
    "bind",
    "cache",
    "errors",
    "kubernetes",
    "loadbalance",
)  # all of them would bring several clouds' clients
MAIN = "\n".join(
    [
        *("package main", "import (", f'\t"{COREDNS_MODULE}/coremain"'),
        *(f'\t_ "{COREDNS_MODULE}/plugin/{name}"' for name in PLUGINS),
        *(")", "func main() { coremain.Run() }", ""),
    ]
)
# As kubeadm's, but without its exception of the cluster's own names from the cache, which older clusters lack: an
# answer is kept for 30 s, also that there is no such name. Nobody serves other names, and they fail at once.
COREFILE = f"""\
.:53 {{
    bind {DNS_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {KUBECONFIG}
        pods insecure
        ttl 30
    }}
    cache 30
    loadbalance
}}
"""


def build(folder: Path) -> None:
    """Build ``coredns`` into ``folder``.

    It is a module of its own: its many requirements are no part of the other programs' keys. With theirs beside them,
    most of what it needs is compiled already.
    """
    source = folder / "source"
    source.mkdir()
    (source / "main.go").write_text(MAIN)
    (source / "go.mod").write_text(golang.requirements(GO_MODULES | {COREDNS_MODULE: COREDNS_VERSION}))
    run(
        *(golang.go(), "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w"),
        *("-o", folder / "coredns", "."),
        env=golang.environment(),
        cwd=source,
        timeout=3600,
    )
    shutil.rmtree(source)
