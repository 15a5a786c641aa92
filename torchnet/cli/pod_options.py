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
)
"""The settings, which come from the same sources as in a launch."""


def pod_options() -> list[tuple[str, Any, Any]]:
    """Return (parameter name, type, typer option) of each option."""
    fields = [BY_PATH[path] for path in PATHS]
    return [(parameter_name(one), list[str] if one.repeat else str, field_option(one)) for one in fields]


def read_pod_options(given: dict[str, Any], networks: tuple[NetworkAttachment, ...], image: str) -> PodOptions:
    """Resolve the options, from flags, variables and the project file, as ``torchnet launch`` does.

    Raises:
        SpecError: A value is invalid.
    """
    from pydantic import ValidationError

    from torchnet.config.k8s_values import parse_toleration
    from torchnet.config.kubernetes import Kubernetes
    from torchnet.config.sources import from_environment, from_flags, from_project, merge
    from torchnet.config.validation_errors import SpecError, from_validation
    from torchnet.k8s.verify.pods import PodOptions
    from torchnet.runtime import working_directory

    typed = {path: given[name] for path in PATHS if (name := parameter_name(BY_PATH[path])) in given}
    layers = [from_flags(typed), from_environment(os.environ), from_project(Path(working_directory()))]
    found = {path: value for path, value in merge(layers).items() if path in PATHS}
    try:
        group = Kubernetes.model_validate(
            {path.partition(".")[2]: value.raw for path, value in found.items()}
        )
    except ValidationError as error:
        origins = {path: value.origin for path, value in found.items()}
        problems = from_validation(error, origins, table="kubernetes")
        raise SpecError(problems, about="options of the test pods", fix="torchnet verify --help") from None
    return PodOptions(
        networks,
        image,
        tolerations=[parse_toleration(text) for text in group.tolerations],
        node_selector=group.node_selector,
        image_pull_secrets=group.image_pull_secrets,
        queue=group.queue or "",
    )
