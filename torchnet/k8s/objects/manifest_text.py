"""Objects as text for ``kubectl apply --server-side -f -``, between comments.

The first lists the source of each setting, the last has the command that deletes the objects.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchnet.config.dump import shown, value_at
from torchnet.config.job_spec import JobSpec
from torchnet.config.sources import DEFAULT, Origin
from torchnet.constants import RUN_LABEL
from torchnet.k8s.objects.run_objects import RenderedRun
from torchnet.text import printable
from torchnet.yaml_io import Manifest, as_json, as_yaml

_RESOURCES = {"NetworkPolicy": "networkpolicies", "MultiNetworkPolicy": "multi-networkpolicies"}


def text(prepared: RenderedRun, form: str, job: JobSpec, origins: Mapping[str, Origin]) -> str:
    """Return the objects as text, the same bytes for the same arguments.

    ``form`` is yaml or json; JSON is a single List and has no comments.
    """
    manifests = [Manifest(body) for body in prepared.objects]
    if form == "json":
        return as_json(manifests)
    return as_yaml(manifests, _head(prepared, job, origins)) + _tail(prepared)


def _tail(prepared: RenderedRun) -> str:
    """Return a comment with the command that deletes these objects; applied by kubectl, they have no owner."""
    kinds = dict.fromkeys(_RESOURCES.get(one["kind"], f"{one['kind'].lower()}s") for one in prepared.objects)
    chosen = f"-n {prepared.namespace} -l {RUN_LABEL}={prepared.run_id}"
    return f"# To delete these objects:\n#   kubectl delete {chosen} {','.join(reversed(kinds))}\n"


def _head(prepared: RenderedRun, job: JobSpec, origins: Mapping[str, Origin]) -> str:
    # Server-side: otherwise kubectl copies each object into an annotation, and annotations are limited to 256 KiB.
    where = f"-n {prepared.namespace}"
    lines = [
        f"The run {prepared.run_id}, as torchnet launch creates it:",
        f"  torchnet launch … --run-id {prepared.run_id} --dry-run | kubectl apply --server-side -f -",
        f"  torchnet attach {where} {prepared.run_id}",
        f"  torchnet down {where} {prepared.run_id} # everything with the label {RUN_LABEL}={prepared.run_id}",
        "",
        "Settings and their sources:",
    ]
    for field in shown(job):
        origin = origins.get(field.path)
        if origin is not None and origin.layer != DEFAULT:
            value = printable(_plain(value_at(job, field)), 200).strip()
            # Empty values, such as no arguments, are not listed.
            lines += [f"  {field.path} = {value} ({origin})"] if value else []
    # Only the names of variables: their values may be secrets, and the objects below already contain them.
    lines += [
        f"  env.{name} ({origins[f'env.{name}']})" for name in sorted(job.env) if f"env.{name}" in origins
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={text}" for key, text in sorted(value.items()))
    return str(value)
