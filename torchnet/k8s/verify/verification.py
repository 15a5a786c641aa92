"""``torchnet verify``: whether a cluster's backend network is there and carries full packets between its nodes.

Looks at what is installed, then tries it with two pods of its own, which are removed in every case.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from torchnet import constants
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, NetworkError
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.run.creation import create
from torchnet.k8s.run.deletion import remove
from torchnet.k8s.verify import checks
from torchnet.k8s.verify.checks import Check, address_of, judge
from torchnet.k8s.verify.live_pods import ANSWER_SECONDS, LivePods, Stopped
from torchnet.k8s.verify.pods import pod, scripts
from torchnet.text import listed

Object = dict[str, Any]
CLEANED = "cleaned up"
_PORT = constants.PORT_FIRST
_START_SECONDS, _REMOVAL_SECONDS = 90.0, 40.0


def verify(
    door: ApiClient,
    namespace: str,
    network: tuple[str, str],
    image: str,
    alive: Callable[[], bool],
    begun: Callable[[str], None] = lambda _: None,
) -> Iterator[Check]:
    """The checks in their order, each as soon as it is done; the pods are tried only where all else is good.

    Once not ``alive()`` any more, nothing new is made, and what was made is removed. ``begun`` gets the name that
    all of it bears as its label, before the first of it is made.

    Raises:
        ClusterError: the cluster cannot be reached, or does not let this user look or make pods; what could not be
            removed then is in the text.
    """
    nodes = checks.ready_nodes(door)
    good = True
    for check in _installed(door, network, nodes):
        good = good and check.good
        yield check
    if good and alive():
        yield from _pods(door, namespace, network, image, len(nodes) > 1, alive, begun)


def _installed(door: ApiClient, network: tuple[str, str], nodes: list[str]) -> Iterator[Check]:
    yield checks.some(nodes)
    yield checks.plugin(door, "Multus", "multus", nodes)
    check, ipam = checks.attachment(door, network)
    yield check
    if ipam == "whereabouts":  # other ways to addresses need no daemon
        yield checks.plugin(door, "Whereabouts", "whereabouts", nodes)


# -- two pods ---------------------------------------------------------------------------------------------------


def _pods(
    door: ApiClient,
    namespace: str,
    network: tuple[str, str],
    image: str,
    apart: bool,
    alive: Callable[[], bool],
    begun: Callable[[str], None],
) -> Iterator[Check]:
    run = f"verify-{secrets.token_hex(3)}"
    pods = LivePods(door, namespace, alive)

    def make(index: int, words: list[str]) -> Object:
        return pod(run, namespace, index, network=network, image=image, apart=apart, words=words)

    failed: ClusterError | None = None
    begun(run)
    if not alive():
        return  # whoever was told that nothing had been made is not to be wrong
    try:
        create(door, [scripts(run, namespace), make(0, ["serve", str(_PORT)])], lambda _: None)
        first = pods.wait(f"{run}-0", "running", _START_SECONDS)
        address = address_of(first, network)
        said = pods.log(f"{run}-0")
        create(door, [make(1, ["ask", str(_PORT), address])], lambda _: None)
        second = pods.wait(f"{run}-1", "ended", _START_SECONDS + ANSWER_SECONDS)
        yield from judge([(first, said), (second, pods.message(second))], network, apart)
    except Stopped:
        pass
    except NetworkError as error:
        yield Check("test pods", False, error.text, error.fix)
    except ClusterError as error:
        failed = error
    finally:
        left = _removed(door, namespace, run)
    fix = f"torchnet down {run} -n {namespace}"
    if failed is not None and alive():
        if left:
            raise ClusterError(f"{failed.text}\n  {left}", fix=f"{fix}; {failed.fix}" if failed.fix else fix)
        raise failed
    if left:
        yield Check(CLEANED, False, left, fix)


def _removed(door: ApiClient, namespace: str, run: str) -> str:
    """Remove all of it; what is left then, or ""."""
    other = ApiClient(door.access)  # whatever else has been told to stop, this has not
    try:
        removal = remove(other, namespace, run, patience=_REMOVAL_SECONDS, force=True)
    except ClusterError as error:
        return f"what has the label {RUN_LABEL}={run} could not be removed: {error.text}"
    return "; ".join([f"still there: {listed(removal.left)}", *removal.problems]) if removal.left else ""
