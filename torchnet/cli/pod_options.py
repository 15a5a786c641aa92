"""Options of ``torchnet launch`` that the test pods of ``torchnet verify`` have as well, with the same values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchnet.cli.typer_parameters import field_option, parameter_name
from torchnet.config.settings import BY_PATH

if TYPE_CHECKING:
    from torchnet.k8s.verify.pods import PodOptions
    from torchnet.network.attachment import NetworkAttachment

PATHS = (
    "kubernetes.node_selector",
    "kubernetes.tolerations",
    "kubernetes.image_pull_secrets",
    "kubernetes.queue",
    "kubernetes.run_as",
    "kubernetes.fs_group",
)
"""The settings, which come from the same sources as in a launch."""


def pod_options() -> list[tuple[str, Any, Any]]:
    """Return (parameter name, type, typer option) of each option."""
    fields = [BY_PATH[path] for path in PATHS]
    return [(parameter_name(one), list[str] if one.repeat else str, field_option(one)) for one in fields]


def read_pod_options(
    given: dict[str, Any], networks: tuple[NetworkAttachment, ...], image: str
) -> PodOptions:
    """Resolve the options, from flags, variables and the project file, as ``torchnet launch`` does.

    Raises:
        SpecError: A value is invalid.
    """
    from torchnet.config.k8s_values import parse_toleration
    from torchnet.config.resolution import resolve_kubernetes
    from torchnet.config.sources import from_environment, from_flags, from_project, merge
    from torchnet.k8s.verify.pods import PodOptions
    from torchnet.runtime import working_directory

    typed = {path: given[name] for path in PATHS if (name := parameter_name(BY_PATH[path])) in given}
    layers = [from_flags(typed), from_environment(os.environ), from_project(Path(working_directory()))]
    found = {path: value for path, value in merge(layers).items() if path in PATHS}
    group = resolve_kubernetes(found, about="options of the test pods", fix="torchnet verify --help")
    return PodOptions(
        networks,
        image,
        tolerations=[parse_toleration(text) for text in group.tolerations],
        node_selector=group.node_selector,
        image_pull_secrets=group.image_pull_secrets,
        queue=group.queue or "",
        user=group.user,
    )
