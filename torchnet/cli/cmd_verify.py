"""``torchnet verify``: check that a backend network is installed and carries full-size packets between nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.cluster_options import add, place
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.config.pod_user import PodUser
    from torchnet.k8s.verify.checks import Check

HELP = """\
Verify the backend network of a cluster: the installation, and full-size packets between two test pods.

The test pods run in the namespace, meet Pod Security "restricted", and are always deleted. The exit code is 4 if a
check fails.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    network = typer.Option(
        None, "--network", metavar="[NS/]NAD", help="NetworkAttachmentDefinition to test. [backend-network]"
    )
    image = typer.Option(
        None, "--image", metavar="IMAGE", help="Image of the test pods; any with Python. [a PyTorch image]"
    )
    run_as = typer.Option(
        None,
        "--run-as",
        metavar="UID[:GID]",
        help="User of the test pods, or namespace to leave it to the namespace's admission policies. [1000]",
    )
    fs_group = typer.Option(None, "--fs-group", metavar="GID", help="Group of the test pods' volumes.")
    options = [
        ("network", str, network),
        ("image", str, image),
        ("run_as", str, run_as),
        ("fs_group", str, fs_group),
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
    """Print one line per check.

    Returns:
        The exit code: 0 if all checks pass, 4 if one fails.
    """
    from torchnet.config.k8s_syntax import parse_image
    from torchnet.k8s.addons.images import PYTORCH
    from torchnet.k8s.commands import verify
    from torchnet.text import printable

    if words:
        raise UsageError(f'unexpected argument "{printable(words[0], 80)}"', fix="torchnet verify --help")
    network = _network(str(given.get("network", "backend-network")))
    try:
        image = parse_image(str(given.get("image", PYTORCH)))
    except ValueError as error:
        raise UsageError(f"--image {given['image']!r} {error}") from None
    return verify(place(given), network, image, _say, _user(given))


def _user(given: dict[str, Any]) -> PodUser:
    """Return the user of the test pods.

    Raises:
        UsageError: An option is invalid.
    """
    from torchnet.config.parsing import quote
    from torchnet.config.pod_user import parse_id, parse_run_as, pod_user

    found: dict[str, Any] = {}
    for name, flag, parse in (("run_as", "--run-as", parse_run_as), ("fs_group", "--fs-group", parse_id)):
        try:
            found[name] = parse(given[name]) if name in given else None
        except ValueError as error:
            raise UsageError(f"{flag} {quote(given[name])} {error}", fix="torchnet verify --help") from None
    return pod_user(**found)


def _network(text: str) -> str:
    """Return ``text`` if it has the form ``[NAMESPACE/]NAME``.

    Raises:
        UsageError: It has a different form.
    """
    from torchnet.config.k8s_syntax import parse_namespaced
    from torchnet.config.parsing import quote

    try:
        parse_namespaced(text)
    except ValueError as error:
        fix = "kubectl get network-attachment-definitions -A"
        raise UsageError(f"--network {quote(text)} {error}", fix=fix) from None
    return text


def _say(check: Check) -> None:
    from torchnet.cli.entry_point import emit

    emit(f"{'ok  ' if check.good else 'FAIL'}  {check.name}: {check.evidence}\n")
    if not check.good and check.fix:
        emit(f"      fix: {check.fix}\n")
