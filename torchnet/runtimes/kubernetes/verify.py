"""``torchnet verify``: whether a cluster's backend network is there and carries full packets between its nodes.

Looks at what is installed, then tries it with two pods of its own, which are removed in every case.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torchnet import names
from torchnet.errors import NetworkError
from torchnet.network.status import parse
from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes import installed
from torchnet.runtimes.kubernetes.create import create
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.installed import Check
from torchnet.runtimes.kubernetes.pods import worker
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.remove import remove
from torchnet.runtimes.kubernetes.resources import EVENT, POD
from torchnet.runtimes.kubernetes.verify_pods import INTERFACE, pod, scripts
from torchnet.runtimes.kubernetes.waiting import events_told

Object = dict[str, Any]
_PORT = names.PORT_FIRST
_START_SECONDS, _ANSWER_SECONDS, _REMOVAL_SECONDS = 90.0, 60.0, 40.0


def verify(
    door: Door, namespace: str, network: tuple[str, str], image: str, alive: Callable[[], bool]
) -> Iterator[Check]:
    """The checks in their order, each as soon as it is done; the pods are tried only where all else is good.

    Raises:
        ClusterError: the cluster cannot be reached, or does not let this user look or make pods.
    """
    nodes = installed.ready_nodes(door)
    good = True
    for check in (
        installed.some(nodes),
        installed.plugin(door, "Multus", "multus", nodes),
        installed.plugin(door, "Whereabouts", "whereabouts", nodes),
        installed.attachment(door, network),
    ):
        good = good and check.good
        yield check
    if good and alive():
        yield from _pods(door, namespace, network, image, len(nodes) > 1, alive)


# -- two pods ---------------------------------------------------------------------------------------------------


def _pods(
    door: Door, namespace: str, network: tuple[str, str], image: str, apart: bool, alive: Callable[[], bool]
) -> Iterator[Check]:
    run = f"verify-{secrets.token_hex(3)}"

    def make(index: int, words: list[str]) -> Object:
        return pod(run, namespace, index, network=network, image=image, apart=apart, words=words)

    try:
        create(door, [scripts(run, namespace), make(0, ["serve", str(_PORT)])], lambda _: None)
        first = _wait(door, namespace, f"{run}-0", lambda one: worker(one).started, _START_SECONDS, alive)
        address = _address(first, network)
        said = _log(door, namespace, f"{run}-0", alive)
        create(door, [make(1, ["ask", str(_PORT), address])], lambda _: None)
        limit = _START_SECONDS + _ANSWER_SECONDS
        second = _wait(door, namespace, f"{run}-1", lambda one: worker(one).ended is not None, limit, alive)
        yield from judge([(first, said), (second, _message(second))], network, apart)
    except NetworkError as error:
        yield Check("test pods", False, error.text, error.fix)
    finally:
        removal = remove(Door(door.access), namespace, run, patience=_REMOVAL_SECONDS, force=True)
    if removal.left:
        fix = f"torchnet down {run} -n {namespace}"
        yield Check("cleaned up", False, f"still there: {listed(removal.left)}", fix)


def judge(tried: Sequence[tuple[Object, Object]], network: tuple[str, str], apart: bool) -> Iterator[Check]:
    """What two test pods (as the API has them, and what they said) prove (pure)."""
    nodes = [str((one.get("spec") or {}).get("nodeName")) for one, _ in tried]
    if apart:
        yield Check("test pods", nodes[0] != nodes[1], f"on {nodes[0]} and {nodes[1]}", "kubectl get nodes")
    else:
        evidence = f"both on {nodes[0]}, the only node: nothing is known of a way between nodes"
        yield Check("test pods", True, evidence)
    for body, said in tried:
        name = body["metadata"]["name"]
        there = set(map(str, said.get("interfaces") or ()))
        wanted = {"eth0", INTERFACE}
        if not wanted <= there:
            evidence = f"{name} has {listed(sorted(there), limit=8) or 'told nothing'}"
            yield Check("interfaces", False, evidence, f"kubectl logs {name}")
            continue
        told = _address(body, network)
        own = list(map(str, said.get("addresses") or ()))
        good = told in own
        evidence = f"{name}: eth0 and {INTERFACE}, {told} in network-status and in the kernel"
        if not good:
            evidence = f"{name}: network-status says {told}, the kernel {listed(own) or 'nothing'}"
        yield Check(
            "addresses", good, evidence, "kubectl describe pod: an old status, or an address that was taken"
        )
    sizes = [said.get("mtu") for _, said in tried]
    answer = tried[1][1]
    reached = bool(answer.get("reached"))
    evidence = f"{answer.get('size')} bytes there and back between {nodes[0]} and {nodes[1]}"
    if not reached:
        problem = str(answer.get("problem") or "the second pod left no result")
        evidence = f"{printable(problem, 300)} (MTU {sizes[0]} and {sizes[1]})"
    fix = "the same MTU on every node's card and on the switches between them"
    yield Check("full size, both ways", reached, evidence, fix)


def _address(body: Object, network: tuple[str, str]) -> str:
    """The pod's address on the backend as network-status has it."""
    meta = body["metadata"]
    text = (meta.get("annotations") or {}).get(names.STATUS_ANNOTATION)
    if not text:
        raise NetworkError(
            f"{meta['name']} runs without a network-status: Multus was passed by on "
            f"{(body.get('spec') or {}).get('nodeName')}",
            fix="the first file in that node's /etc/cni/net.d must be Multus's (Cilium: cni.exclusive=false)",
        )
    for entry in parse(text):
        if entry.name == "/".join(network) and entry.interface == INTERFACE and entry.ips:
            return str(entry.ips[0])
    raise NetworkError(
        f"{meta['name']}'s network-status has no address of {'/'.join(network)} on {INTERFACE}",
        fix="the attachment's cniVersion must be 0.3.1 or newer, and it needs an ipam",
    )


def _wait(
    door: Door,
    namespace: str,
    name: str,
    done: Callable[[Object], bool],
    seconds: float,
    alive: Callable[[], bool],
) -> Object:
    until = time.monotonic() + seconds
    while True:
        body = door.call("GET", POD.path(namespace, name), POD.call("get", namespace, name))
        if done(body):
            return body
        if time.monotonic() > until or not alive():
            one = worker(body)
            why = _told(door, namespace, name) or one.why or one.stage
            text = f"{name} did not get that far within {seconds:g} s: {printable(why, 500)}"
            raise NetworkError(text, fix=_fix(why))
        time.sleep(0.3)


def _fix(why: str) -> str:
    if "Image" in why or "Pulling" in why:
        return "--image IMAGE: one with Python that the nodes can pull"
    return "kubectl get events; the node's /opt/cni/bin and its card"


def _told(door: Door, namespace: str, name: str) -> str:
    query = {"fieldSelector": f"involvedObject.name={name}"}
    try:
        answer = door.call("GET", EVENT.path(namespace), EVENT.call("list", namespace), query=query)
    except Refused:
        return ""
    return events_told(answer.get("items") or ()).get(name, "")


def _log(door: Door, namespace: str, name: str, alive: Callable[[], bool]) -> Object:
    """The line of JSON that the first pod prints when it serves."""
    until = time.monotonic() + _ANSWER_SECONDS
    call = POD.call("get", namespace, name, "log")
    text = b""
    while time.monotonic() < until and alive():
        try:
            response = door.stream(
                POD.path(namespace, name, "log"), call, query={"limitBytes": 65536}, silence=10.0
            )
        except Refused as error:
            if error.status != 400:
                raise
        else:
            text = bytes(response.read())
            response.release_conn()
            if b"\n" in text:
                break
        time.sleep(0.3)
    return _parsed(text.decode("utf-8", "replace").partition("\n")[0], text)


def _message(body: Object) -> Object:
    states = [one.get("state") or {} for one in (body.get("status") or {}).get("containerStatuses") or ()]
    text = next((str((one.get("terminated") or {}).get("message") or "") for one in states), "")
    return _parsed(text, text.encode())


def _parsed(text: str, whole: bytes) -> Object:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    return {"problem": whole[-300:].decode("utf-8", "replace").strip()}
