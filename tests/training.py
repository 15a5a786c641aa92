"""torchnet.init() in processes of a test's own: alone, or ranks with the variables set by hand."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import textwrap

import pytest

from tests.jobs import ROOT

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

# What every script below begins with: the ports that this process listens on, by address.
BEGIN = """
import os, socket, sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch, torch.distributed as dist
import torchnet

def listening():
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            inodes.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with open(f"/proc/self/net/{name}") as file:
            lines = [line.split() for line in file][1:]
        for words in lines:
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                address, port = words[1].split(":")
                raw = b"".join(bytes.fromhex(address[i:i + 8])[::-1] for i in range(0, len(address), 8))
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found

def reached(address, port):
    try:
        socket.create_connection((address, port), 2).close()
        return True
    except ConnectionRefusedError:
        return False
"""
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not re.match(
        "RANK|WORLD_SIZE|LOCAL_|MASTER_|GROUP_|TORCHELASTIC|TORCHNET_|GLOO_|NCCL_|USE_LIBUV", name
    )
} | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(script: str, *, env: dict[str, str] | None = None, command: tuple[str, ...] = ()) -> str:
    process = start(script, env=env, command=command)
    return finish(process)


def start(
    script: str, *, env: dict[str, str] | None = None, command: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    argv = [*(command or (sys.executable,)), "-c", BEGIN + textwrap.dedent(script)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, env={**CLEAN, **(env or {})}, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def ranks(script: str, count: int = 2, **env: str) -> list[str]:
    processes: list[subprocess.Popen[str]] = []
    for rank in range(count):
        own = {
            "RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(count),
        }
        processes.append(start(script, env={**own, **env}))
    try:
        return [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
