"""The parts of the cluster: programs from Go modules, the worker's file system, and the store with all images."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

from tests.cluster import coredns as program
from tests.cluster import golang, images, store
from tests.cluster import versions as v
from tests.cluster.golang import build_programs
from tests.cluster.parts import Part, forget_old, locked, together
from tests.cluster.shell import ClusterFailure, run

KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
# What the worker needs beside PyTorch: `ip` and `ping`, to look around with.
WORKER_PACKAGES = "python3-minimal,python3-torch,iproute2,iputils-ping"


def _kubernetes(folder: Path) -> None:
    minor = v.KUBERNETES_VERSION.removeprefix("v1.")
    version = "k8s.io/component-base/version"
    build_programs(
        folder,
        v.KUBERNETES_MODULE,
        {f"cmd/{name}": name for name in KUBERNETES_PROGRAMS},
        {
            f"{version}.gitVersion": v.KUBERNETES_VERSION,
            f"{version}.gitMajor": "1",
            f"{version}.gitMinor": minor.partition(".")[0],
        },
    )


def _multus(folder: Path) -> None:
    names = ("multus", "install_multus", "thin_entrypoint")
    programs = {f"cmd/{name}": name for name in names} | {"cmd/passthru-cni": "passthru"}
    variable = f"{v.MULTUS_MODULE}/pkg/multus.version"
    build_programs(folder, v.MULTUS_MODULE, programs, {variable: v.MULTUS_VERSION})


def _whereabouts(folder: Path) -> None:
    programs = {
        "cmd": "whereabouts",
        "cmd/controlloop": "ip-control-loop",
        "cmd/reconciler": "ip-reconciler",
    }
    variable = f"{v.WHEREABOUTS_MODULE}/pkg/version.Version"
    build_programs(folder, v.WHEREABOUTS_MODULE, programs, {variable: v.WHEREABOUTS_VERSION})
    scripts = golang.module_folder(v.WHEREABOUTS_MODULE, v.WHEREABOUTS_VERSION) / "script"
    for name in ("install-cni.sh", "lib.sh", "token-watcher.sh"):
        (folder / name).write_bytes((scripts / name).read_bytes())


def _jobset(folder: Path) -> None:
    variable = f"{v.JOBSET_MODULE}/pkg/version.GitVersion"
    build_programs(folder, v.JOBSET_MODULE, {"": "manager"}, {variable: v.JOBSET_VERSION})


def _jobset_manifest(folder: Path) -> None:
    configuration = golang.module_folder(v.JOBSET_MODULE, v.JOBSET_VERSION) / "config" / "default"
    text = run(kubernetes.folder / "kubectl", "kustomize", configuration)
    if f"image: {v.JOBSET_IMAGE}\n" not in text:
        raise ClusterFailure(f"JobSet's own configuration names another image than {v.JOBSET_IMAGE}")
    (folder / "jobset.yaml").write_text(text)


def _worker(folder: Path) -> None:
    listed = run(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Created-By: Packages"
    )
    if not listed:
        raise ClusterFailure("apt knows no mirror of Debian: run `apt-get update`")
    run(
        *("mmdebstrap", "--variant=apt", f"--include={WORKER_PACKAGES}"),
        "--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*",
        *(v.DEBIAN_RELEASE, folder / "root.tar", f"deb {listed.split()[0]} {v.DEBIAN_RELEASE} main"),
        timeout=1800,
    )


def source(one: object) -> str:
    """What a function or module does, as text: comments, docstrings and line breaks make no difference."""
    tree = ast.parse(inspect.getsource(one))  # type: ignore[arg-type]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def _part(name: str, make: Callable[[Path], None], *versions: str, needs: tuple[Part, ...] = ()) -> Part:
    return Part(name, "\n".join([source(make), *versions]), make, list(needs))


_GO = (source(golang), *(f"{module} {version}" for module, version in v.GO_MODULES.items()))
kubernetes = _part("kubernetes", _kubernetes, *_GO, *KUBERNETES_PROGRAMS)
multus = _part("multus", _multus, *_GO)
whereabouts = _part("whereabouts", _whereabouts, *_GO)
jobset = _part("jobset", _jobset, *_GO)
jobset_manifest = _part("jobset-manifest", _jobset_manifest, v.JOBSET_VERSION, needs=(kubernetes,))
coredns = _part("coredns", program.build, program.MAIN, v.COREDNS_VERSION, *_GO)
worker = _part("worker", _worker, v.DEBIAN_RELEASE, WORKER_PACKAGES)


def _images() -> list[images.Image]:
    return [
        store.pause(),
        store.multus(multus.folder),
        store.whereabouts(whereabouts.folder),
        images.Image(
            (v.JOBSET_IMAGE,),
            files={"/manager": jobset.folder / "manager"},
            entrypoint=("/manager",),
            user="65532:65532",
        ),
        images.Image(v.WORKER_NAMES, root=worker.folder / "root.tar", command=("/usr/bin/python3",)),
    ]


def _store(folder: Path) -> None:
    store.fill(folder, _images())


image_store = _part(
    "store",
    _store,
    *(source(one) for one in (images, store, _images)),
    *(v.PAUSE_IMAGE, v.MULTUS_IMAGE, v.WHEREABOUTS_IMAGE, v.JOBSET_IMAGE, *v.WORKER_NAMES),
    needs=(worker, multus, whereabouts, jobset),
)
PARTS = [worker, multus, whereabouts, jobset, kubernetes, jobset_manifest, coredns, image_store]


def built() -> bool:
    """Whether everything is there as this checkout wants it."""
    return all(part.built for part in PARTS)


def build() -> None:
    """Build what is missing, in the cache; at once if nothing is."""
    if built():
        return
    with locked():
        # Go has work for all cores by itself: its modules one after the other, what takes no Go beside them. The
        # images' programs come first, for the store waits for them.
        def programs() -> None:
            for part in (multus, whereabouts, jobset):
                part.build()
            together([image_store.build, kubernetes.build])
            jobset_manifest.build()
            coredns.build()

        together([worker.build, programs])
        forget_old(PARTS)
