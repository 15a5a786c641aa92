"""``torchnet verify``: whether a cluster has a backend network that carries full-size packets between its nodes.

Checks what is installed, then tests it with two pods, which are deleted in every case.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from torchnet import constants
from torchnet.config.pod_user import DEFAULT_USER, PodUser
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.run.creation import create
from torchnet.k8s.run.deletion import remove
from torchnet.k8s.verify import checks
from torchnet.k8s.verify.checks import Check, address_of, judge
from torchnet.k8s.verify.live_pods import ANSWER_SECONDS, LivePods, Stopped
from torchnet.k8s.verify.pods import pod, scripts
from torchnet.text import listed

Object = dict[str, Any]
CLEANED = "cleaned up"
_PORT = constants.JOIN_PORT
_START_SECONDS, _REMOVAL_SECONDS = 90.0, 40.0


def verify(
    client: ApiClient,
    namespace: str,
    network: tuple[str, str],
    image: str,
    alive: Callable[[], bool],
    on_start: Callable[[str], None] = lambda _: None,
    user: PodUser = DEFAULT_USER,
) -> Iterator[Check]:
    """Yield the checks in order, each as soon as it is done; the test pods run only if all other checks passed.

    Args:
        network: (namespace, name) of the attachment.
        image: Image of the test pods.
        alive: Once it returns False, no more objects are created, and those that exist are deleted.
        on_start: Called with the value of the objects' run label before the first object is created.
        user: User of the test pods.

    Raises:
        ClusterError: The cluster cannot be reached, or does not allow this user to read or create what is needed. The
            text also names the objects that could not be deleted.
    """
    nodes = checks.ready_nodes(client)
    good = True
    for check in _installed(client, network, nodes):
        good = good and check.good
        yield check
    if good and alive():
        yield from _pods(client, namespace, network, image, user, len(nodes) > 1, alive, on_start)


def _installed(client: ApiClient, network: tuple[str, str], nodes: list[str]) -> Iterator[Check]:
    yield checks.check_nodes(nodes)
    yield checks.check_plugin(client, "Multus", "multus", nodes)
    check, ipam = checks.check_attachment(client, network)
    yield check
    if ipam == "whereabouts":  # the other IPAM plugins need no daemon
        yield checks.check_plugin(client, "Whereabouts", "whereabouts", nodes)


# -- two pods ---------------------------------------------------------------------------------------------------


def _pods(
    client: ApiClient,
    namespace: str,
    network: tuple[str, str],
    image: str,
    user: PodUser,
    apart: bool,
    alive: Callable[[], bool],
    on_start: Callable[[str], None],
) -> Iterator[Check]:
    run = f"verify-{secrets.token_hex(3)}"
    pods = LivePods(client, namespace, alive)

    def make(index: int, arguments: list[str]) -> Object:
        return pod(
            run, namespace, index, network=network, image=image, user=user, apart=apart, arguments=arguments
        )

    failed: ClusterError | None = None
    on_start(run)
    if not alive():
        return  # a signal before begun() was reported as "nothing was made": keep that true
    try:
        create(client, [scripts(run, namespace), make(0, ["serve", str(_PORT)])], lambda _: None)
        first = pods.wait(f"{run}-0", "running", _START_SECONDS)
        address = address_of(first, network)
        report = pods.log(f"{run}-0")
        results = [(first, report)]
        if not checks.blocked(report):
            create(client, [make(1, ["ask", str(_PORT), address])], lambda _: None)
            second = pods.wait(f"{run}-1", "ended", _START_SECONDS + ANSWER_SECONDS)
            results.append((second, pods.message(second)))
        yield from judge(results, network, apart)
    except Stopped:
        pass
    except NetworkError as error:
        yield Check("test pods", False, error.text, error.fix)
    except ClusterError as error:
        failed = error
    finally:
        left = _removed(client, namespace, run)
    fix = f"torchnet down {run} -n {namespace}"
    if failed is not None and alive():
        if left:
            raise ClusterError(f"{failed.text}\n  {left}", fix=f"{fix}; {failed.fix}" if failed.fix else fix)
        raise failed
    if left:
        yield Check(CLEANED, False, left, fix)


def _removed(client: ApiClient, namespace: str, run: str) -> str:
    """Delete all objects of the test; return what could not be deleted, or ""."""
    other = ApiClient(client.access)  # a new client: the stop event of ``client`` may be set
    try:
        removal = remove(other, namespace, run, patience=_REMOVAL_SECONDS, force=True)
    except ClusterError as error:
        return f"cannot delete the objects with the label {RUN_LABEL}={run}: {error.text}"
    return "; ".join([f"not deleted: {listed(removal.left)}", *removal.problems]) if removal.left else ""
