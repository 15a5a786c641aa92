"""``torchnet verify``: check that a backend network is installed and carries full-size packets between nodes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli import verify_hosts
from torchnet.cli.cluster_options import add, place
from torchnet.cli.pod_options import pod_options, read_pod_options
from torchnet.cli.torchrun_compat import OF_HOSTS, TORCHRUN_FLAGS
from torchnet.cli.typer_parameters import field_option, parameter_name
from torchnet.config.settings import BY_PATH
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.cli.multi_host import HostPlan
    from torchnet.k8s.verify.check import Check
    from torchnet.network.attachment import NetworkAttachment

FORMATS = ("text", "json")
HELP = """\
Verify the backend network of a cluster: the installation, and full-size packets between two test pods.

With --all-nodes, one pod runs on each node, each node tests the paths to several others, and the bandwidth is measured,
which loads the backend network for some seconds. Nodes that fail with all of their partners are named.

On several hosts without Kubernetes, start it on each: srun torchnet verify --network host:ens5, or with --nnodes,
--node-rank and --master-addr or --rdzv-endpoint as for torchnet launch. The hosts check all paths between them, and the
first one prints the result.

The test pods run in the namespace, meet Pod Security "restricted", and are always deleted. The exit code is 4 if a
check fails. What this user may not read is unknown, which is not a failure.
"""
_MARKS = {"ok": "ok  ", "fail": "FAIL", "unknown": "?   "}


def register(app: typer.Typer) -> None:
    """Add the command."""
    network = typer.Option(
        None,
        "--network",
        metavar="[NS/]NAD[*N]",
        help="NetworkAttachmentDefinition to test; [NS/]NAD[*COUNT][=RESOURCE]. Repeat it for each rail. On hosts "
        "without Kubernetes, host:INTERFACE or host:NETWORK/LENGTH. [backend-network]",
    )
    image = typer.Option(
        None, "--image", metavar="IMAGE", help="Image of the test pods; any with Python. [a PyTorch image]"
    )
    every = typer.Option(
        None, "--all-nodes", help="Test all nodes, not two. Needs the right to list nodes, and to patch pods."
    )
    form = typer.Option(None, "-o", metavar="|".join(FORMATS), help="Output format. [text]")
    fields = [BY_PATH[path] for path in verify_hosts.FIELDS]
    options = [
        ("network", list[str], network),
        ("all_nodes", bool, every),
        ("image", str, image),
        *((parameter_name(one), str, field_option(one)) for one in fields),
        *(
            (one.parameter, str, typer.Option(None, one.flag, hidden=True))
            for one in TORCHRUN_FLAGS
            if one.flag in OF_HOSTS
        ),
        *pod_options(),
        ("form", str, form),
    ]
    add(
        app,
        "verify",
        run,
        about=HELP,
        short="Verify the backend network of a cluster.",
        options=options,
        words="[FLAGS]",
    )


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print one line per check, or one document.

    Returns:
        The exit code: 0 if no check fails, 4 if one fails.
    """
    from torchnet.cli.entry_point import emit, say
    from torchnet.cli.multi_host import plan
    from torchnet.config.k8s_syntax import parse_image
    from torchnet.k8s.addons.images import PYTORCH
    from torchnet.k8s.commands import verify
    from torchnet.k8s.verify.cluster_report import ClusterReport, document
    from torchnet.text import printable

    if words:
        raise UsageError(f'unexpected argument "{printable(words[0], 80)}"', fix="torchnet verify --help")
    form = given.get("form", FORMATS[0])
    if form not in FORMATS:
        raise UsageError(f"invalid output format {form!r}; valid: {', '.join(FORMATS)}")
    if (planned := plan(given, os.environ)) is not None:
        return _on_hosts(planned, given, form)
    networks = _networks(given.get("network") or ["backend-network"])
    try:
        image = parse_image(str(given.get("image", PYTORCH)))
    except ValueError as error:
        raise UsageError(f"--image {given['image']!r} {error}") from None
    target = place(given)
    checks: list[Check] = []
    cluster_report = ClusterReport()
    code = verify(
        target,
        read_pod_options(given, networks, image),
        checks.append if form == "json" else _say,
        all_nodes=bool(given.get("all_nodes")),
        cluster_report=cluster_report,
        progress=lambda line: say(f"torchnet: {line}"),
    )
    if form == "json":
        emit(json.dumps(document(cluster_report, checks, code), indent=2) + "\n")
    return code


def _on_hosts(planned: HostPlan, given: dict[str, Any], form: str) -> int:
    from torchnet.cli.entry_point import emit
    from torchnet.k8s.verify.cluster_report import ClusterReport, document

    known = {"network", "form", *(parameter_name(BY_PATH[path]) for path in verify_hosts.FIELDS)}
    known |= {one.parameter for one in TORCHRUN_FLAGS}
    if foreign := [
        f"--{name.rpartition('__')[2].strip('_').replace('_', '-')}" for name in given if name not in known
    ]:
        raise UsageError(
            f"{', '.join(foreign)}: of test pods, without effect on hosts ({planned.shown})",
            fix="torchnet verify --help",
        )
    checks: list[Check] = []
    code = verify_hosts.run(planned, given, checks.append if form == "json" else _say)
    if form == "json" and checks:  # on the other hosts there are none
        emit(json.dumps(document(ClusterReport(), checks, code), indent=2) + "\n")
    return code


def _networks(texts: list[str]) -> tuple[NetworkAttachment, ...]:
    """Parse the values of --network.

    Raises:
        UsageError: One is not ``[NAMESPACE/]NAME[*COUNT][=RESOURCE]``, or there are too many rails.
    """
    from torchnet.config.k8s_values import parse_networks
    from torchnet.config.parsing import quote
    from torchnet.network.host_networks import is_host_network

    fix = "kubectl get network-attachment-definitions -A"
    for text in texts:
        if is_host_network(text):
            raise UsageError(
                f"--network {quote(text)} is the hosts' own, which test pods do not have",
                fix="start it on each host, with --nnodes N --rdzv-endpoint HOST:29400; or by srun",
            )
    try:
        return parse_networks(texts)
    except ValueError as error:
        raise UsageError(f"--network {error}", fix=fix) from None


def _say(check: Check) -> None:
    from torchnet.cli.entry_point import emit

    emit(f"{_MARKS[check.result]}  {check.name}: {check.evidence}\n")
    if check.result != "ok" and check.fix:
        emit(f"      fix: {check.fix}\n")
