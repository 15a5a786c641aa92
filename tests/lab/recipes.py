"""The lab's own part: the CNI plugins, each a program of one Go module."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cluster import golang
from tests.cluster import recipes as cluster
from tests.cluster.parts import Part, locked
from tests.cluster.shell import run
from tests.lab import versions as v

MODULE = f"module torchnet.test/plugins\ngo {golang.WANTED}\nrequire {v.PLUGINS_MODULE} {v.PLUGINS_VERSION}\n"


def _plugins(folder: Path) -> None:
    """Build all of them at once: they share most of their packages."""
    source = folder / "source"
    source.mkdir()
    (source / "go.mod").write_text(MODULE)
    version = f"-X {v.PLUGINS_MODULE}/pkg/utils/buildversion.BuildVersion={v.PLUGINS_VERSION}"
    run(
        *(golang.go(), "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {version}"),
        *("-o", f"{folder}/", *(f"{v.PLUGINS_MODULE}/{package}" for package in v.PLUGINS.values())),
        env=golang.environment(),
        cwd=source,
        timeout=1800,
    )
    shutil.rmtree(source)


plugins = Part("cni-plugins", "\n".join([MODULE, json.dumps(v.PLUGINS), cluster.source(_plugins)]), _plugins)


def built() -> bool:
    """Whether everything is there as this checkout wants it."""
    return plugins.built and cluster.built()


def build() -> None:
    """Build what is missing: the plugins in half a minute, after the cluster's parts."""
    if plugins.built:
        plugins.build()  # which says that it is in use: the cluster's build forgets what is not
    cluster.build()
    if not plugins.built:
        with locked():
            plugins.build()
