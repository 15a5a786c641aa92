"""``launch --dry-run | kubectl apply --server-side -f -``: the objects train to the end by themselves, in each form.

In a namespace that enforces Pod Security "restricted"; every object is judged by the API server's strict validation.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import yaml

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.jobs import SLOW, until

# Talks over the backend for a moment; without torch, so that the pods are up and gone in seconds.
TALK = """
    import os, socket, sys, time, torchnet
    rank, name = int(os.environ["RANK"]), os.environ["GLOO_SOCKET_IFNAME"]
    if rank == 0:
        server = socket.create_server((os.environ["MASTER_ADDR"], 7000), family=socket.AF_INET6)
        connection, _ = server.accept()
        count = 0
        while count < 3_000_000:
            count += len(connection.recv(1 << 16))
    elif rank == 1:
        for _ in range(1200):
            try:
                connection = socket.create_connection((os.environ["MASTER_ADDR"], 7000))
                break
            except OSError:
                time.sleep(0.05)
        connection.sendall(bytes(3_000_000))
    print("talked", ascii(sys.argv[1:]), ascii(os.environ["TOLD"]), name, torchnet.__version__, flush=True)
"""
HOSTILE = "$(HOME) $$ \n: {} # 'x' \"y\" \u202e"
FORMS: dict[str, tuple[str, ...]] = {
    "job": (),
    "jobset": ("--kind", "jobset"),
    "pods": ("--kind", "pods"),
    "fixed addresses": ("--static-ips", "fcbb:0:800:ffff::e00-fcbb:0:800:ffff::e0f/64"),
}


def dry(launcher: Launcher, *words: str, network: str = "backend-network") -> str:
    ran = launcher.run(*launcher.words("--dry-run", *words, nnodes=2, network=network))
    assert (ran.code, "the job's token (Secret " in ran.err) == (0, True), ran.err
    return ran.out


@pytest.mark.parametrize("form", FORMS)
@concurrent
def test_the_printed_objects_train_to_the_end(launcher: Launcher, jobset: None, form: str) -> None:
    script = launcher.script(TALK)
    words = list(FORMS[form])
    network = "fixed" if "--static-ips" in words else "backend-network"
    if network == "fixed":
        attachment = (
            "--type",
            "macvlan",
            "--ipam",
            "static",
            "--name",
            network,
            "--namespace",
            launcher.namespace,
        )
        made = launcher.run("manifests", "backend-network", *attachment)
        launcher.cluster.kubectl("apply", "-f", "-", input=made.out)
    words += [
        "--run-id",
        "dry",
        "--env",
        f"TOLD={HOSTILE}",
        "--annotation",
        f"x.example/y={HOSTILE}",
        script,
        HOSTILE,
    ]
    text = dry(launcher, *words, network=network)
    assert dry(launcher, *words, network=network) == text
    applied = launcher.cluster.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", input=text)
    assert len(applied.splitlines()) == len([body for body in yaml.safe_load_all(text) if body])
    until(lambda: ends(launcher) == [0, 0], "the end of both workers", 90, SLOW)
    logs = [said(launcher, pod) for pod in launcher.pods()]
    argument = HOSTILE.replace("$$", "$")  # what torchrun makes of it
    for log in logs:
        assert f"talked {[argument]!a} {HOSTILE!a} net1 " in log
    (receipt,) = [
        found[1] for log in logs if (found := re.search(r"^torchnet: receipt: (.*)$", log, re.MULTILINE))
    ]
    told = json.loads(receipt)
    assert (told["exit_code"], told["proof"], told["run_id"]) == (0, "measured", "dry")
    assert told["backend_share"] >= 0.99
    for pod in launcher.pods():
        assert pod["metadata"]["annotations"]["x.example/y"] == HOSTILE
    # The last line is the command that takes everything away.
    words = text.splitlines()[-1].split()
    assert words[:3] == ["#", "kubectl", "delete"]
    launcher.cluster.kubectl(*words[2:], "--wait=false")
    until(lambda: not launcher.left(), "the removal of all objects", pause=SLOW)


def said(launcher: Launcher, pod: dict[str, Any]) -> str:
    """The training container's log."""
    words = ("logs", "-n", launcher.namespace, pod["metadata"]["name"], "-c", "worker")
    return launcher.cluster.kubectl(*words)


def ends(launcher: Launcher) -> list[int]:
    """The training containers' exit codes, of those that have ended; fails at once where one is not 0."""
    found = []
    for pod in launcher.pods():
        states = [
            one["state"].get("terminated")
            for key in ("initContainerStatuses", "containerStatuses")
            for one in pod["status"].get(key, [])
        ]
        wrong = [state for state in states if state and state["exitCode"]]
        assert wrong == [], said(launcher, pod)
        if len(states) == 2 and all(states):
            found.append(0)
    return found


@concurrent
def test_the_templates_pod_is_judged_before_anything_exists(launcher: Launcher) -> None:
    """What the namespace forbids shows in a dry run of one Pod, and not in that of the Job."""
    script = launcher.script(TALK)
    bodies: list[dict[str, Any]] = [
        one for one in yaml.safe_load_all(dry(launcher, "--run-as", "0", script)) if one
    ]
    job = bodies[-1]
    assert "created (server dry run)" in launcher.cluster.kubectl(
        "create", "--dry-run=server", "-f", "-", input=json.dumps(job)
    )
    began = time.monotonic()
    ran = launcher.run(*launcher.words("--run-as", "0", script, nnodes=2))
    assert ran.code != 0
    assert "PodSecurity" in ran.err
    assert launcher.left() == []
    assert time.monotonic() - began < 60
