"""Pythons that have imported what all workers of a node need: PyTorch, which takes 10 s and more there, and the agent.

preloaded.py serve torch      on the node, from its start on
preloaded.py serve agent      the same for the agent; `tests.lab.node_server` asks it, for a pod
preloaded.py run SCRIPT       in place of `python SCRIPT`: a fork of the first server runs it, in the network, with the
                              files, the environment and the output of this process, whose exit code is the script's
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys

TYPE_CHECKING = False  # `run` is started for each script: it imports little
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SOCKETS = {"torch": "/run/preloaded-torch", "agent": "/run/preloaded-agent"}
AGENT = "/run/agent"  # what the archive contains that torchnet gives to pods
STREAMS, NAMESPACES = 3, ("mnt", "net")
_NEW_MOUNTS, _BIND, _RECURSIVE, _SLAVE, _LAZY = 0x20000, 0x1000, 0x4000, 0x80000, 2


def serve(what: str) -> None:
    """Run scripts for ever, each in one fork: another one would copy all the memory's tables again."""
    if what == "torch":
        import torch.distributed  # noqa: F401
    else:
        sys.path.insert(0, AGENT)
        for module in ("command_line", "preparation", "agent"):
            importlib.import_module(f"torchnet.agent.{module}")
    gc.collect()
    gc.freeze()  # what is there already is not looked at again, and thus not copied
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(f"{SOCKETS[what]}.new")
        listener.listen()
        os.rename(f"{SOCKETS[what]}.new", SOCKETS[what])  # there only when all is imported
        selector.register(listener, selectors.EVENT_READ)
        children: dict[object, tuple[int, socket.socket]] = {}
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    child = _fork(connection)
                    ended = os.pidfd_open(child)
                    children[ended] = children[connection] = child, connection
                    selector.register(ended, selectors.EVENT_READ)
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                child, connection = children.pop(key.fileobj)
                selector.unregister(key.fileobj)
                if key.fileobj is connection:  # nobody waits for the script any more
                    os.killpg(child, signal.SIGKILL)
                    continue
                _, status = os.waitpid(child, 0)
                os.close(int(str(key.fileobj)))
                if children.pop(connection, None):
                    selector.unregister(connection)
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                connection.close()


def _fork(connection: socket.socket) -> int:
    """Start the script that is asked for, in a session of its own; return its process id."""
    size = array.array("i").itemsize * (STREAMS + len(NAMESPACES))
    data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(size))
    descriptors = list(array.array("i", ancillary[0][2]))  # the standard streams, then namespaces
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _become(json.loads(data), descriptors)
        finally:
            os._exit(126)
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def enter(pod: str, binds: Mapping[str, str]) -> None:
    """Go where `ip netns exec POD` starts a command, and mount a container's volumes: folder -> where it is seen."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def done(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def mount(source: str, target: str, kind: str, flags: int) -> None:
        done(libc.mount(source.encode(), target.encode(), kind.encode(), flags, None))

    with open(f"/run/netns/{pod}") as namespace:
        done(libc.setns(namespace.fileno(), 0))
    done(libc.unshare(_NEW_MOUNTS))
    mount("", "/", "none", _SLAVE | _RECURSIVE)
    done(libc.umount2(b"/sys", _LAZY))
    mount("sysfs", "/sys", "sysfs", 0)
    folder = f"/etc/netns/{pod}"
    for source, target in [
        *((f"{folder}/{name}", f"/etc/{name}") for name in os.listdir(folder)),
        *binds.items(),
    ]:
        mount(source, target, "none", _BIND)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for number, descriptor in enumerate(descriptors):
        if number < STREAMS:
            os.dup2(descriptor, number)
        elif libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)
    if "pod" in request:
        enter(request["pod"], request["binds"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv[:] = request["argv"]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ask(what: str, request: dict[str, Any], descriptors: list[int]) -> socket.socket:
    """Ask a server for a fork; the connection, which brings the exit code and whose end ends the fork."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(SOCKETS[what])
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([json.dumps(request).encode()], passed)
    return connection


def code_of(connection: socket.socket) -> int:
    """The exit code, as a shell has it, once the fork has ended."""
    code = int(connection.recv(16) or b"1")
    return code if code >= 0 else 128 - code


def run(argv: list[str]) -> int:
    request = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}
    namespaces = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in NAMESPACES]
    with ask("torch", request, [*range(STREAMS), *namespaces]) as connection:
        return code_of(connection)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", what]:
            serve(what)
        case ["run", *words]:
            sys.exit(run(words))
