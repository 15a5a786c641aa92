"""containerd's root folder with all images in it, imported and unpacked once: the nodes start from it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.cluster.images import Image, pack
from tests.cluster.shell import ClusterFailure, run, wait_until
from tests.cluster.versions import MULTUS_IMAGE, PAUSE_IMAGE, WHEREABOUTS_IMAGE

BUSYBOX = Path("/bin/busybox")


def shell() -> dict[str, str]:
    """Links to busybox for everything it can, for images with a shell."""
    return {f"/bin/{applet}": "busybox" for applet in run(BUSYBOX, "--list").split() if applet != "busybox"}


def pause() -> Image:
    """What holds a pod's namespaces: it only has to stay."""
    files = {"/bin/busybox": BUSYBOX}
    return Image((PAUSE_IMAGE,), files=files, links=shell(), entrypoint=("/bin/sleep", "2147483647"))


def multus(built: Path) -> Image:
    """As upstream's image: no shell, the plugins where /install_multus looks for them."""
    plugins = {f"/usr/src/multus-cni/bin/{name}": built / name for name in ("multus", "passthru")}
    programs = {f"/{name}": built / name for name in ("install_multus", "thin_entrypoint")}
    return Image((MULTUS_IMAGE,), files=plugins | programs, entrypoint=("/thin_entrypoint",))


def whereabouts(built: Path) -> Image:
    """As upstream's image, with busybox in place of Alpine's."""
    programs = {f"/{path.name}": path for path in sorted(built.iterdir())}
    files = {"/bin/busybox": BUSYBOX} | programs
    return Image((WHEREABOUTS_IMAGE,), files=files, links=shell(), command=("/install-cni.sh",))


def fill(root: Path, images: list[Image]) -> None:
    """Import ``images`` into the empty containerd root ``root``, by a containerd of its own."""
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".import-") as name:
        folder = Path(name)
        socket = folder / "socket"
        settings = folder / "config.toml"
        settings.write_text(
            f"""version = 2
root = "{root}"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
"""
        )
        ctr = ("ctr", "--address", socket, "--namespace", "k8s.io")
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                ["containerd", "--config", str(settings)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            wait_until("containerd", 20, lambda: bool(run(*ctr, "version")))
            for number, image in enumerate(images):
                archive = folder / f"{number}.tar"
                pack(image, archive)
                run(*ctr, "images", "import", archive, timeout=600)
                archive.unlink()
            listed = run(*ctr, "images", "ls", "-q").split()
        finally:
            process.terminate()
            process.wait(30)
        missing = [name for image in images for name in image.names if name not in listed]
        if missing:
            raise ClusterFailure(f"not in the store after its import: {', '.join(missing)}")
