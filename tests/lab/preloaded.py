"""A Python that has imported PyTorch once for all workers of a node, where an import takes 10 s and more.

preloaded.py serve            on the node, from its start on
preloaded.py run SCRIPT       in place of `python SCRIPT`: a fork of the server runs it, in the network, with the
                              files, the environment and the output of this process, whose exit code is the script's
"""

from __future__ import annotations

import array
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys

SOCKET = "/run/preloaded"
STREAMS, NAMESPACES = 3, ("mnt", "net")


def serve() -> None:
    """Run scripts for ever, each in one fork: another one would copy all the memory's tables again."""
    import torch.distributed  # noqa: F401

    gc.collect()
    gc.freeze()  # what is there already is not looked at again, and thus not copied
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(f"{SOCKET}.new")
        listener.listen()
        os.rename(f"{SOCKET}.new", SOCKET)  # there only when PyTorch is
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
                    os.kill(child, signal.SIGKILL)
                    continue
                _, status = os.waitpid(child, 0)
                os.close(int(str(key.fileobj)))
                if children.pop(connection, None):
                    selector.unregister(connection)
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                connection.close()


def _fork(connection: socket.socket) -> int:
    """Start the script that is asked for; return its process id."""
    size = array.array("i").itemsize * (STREAMS + len(NAMESPACES))
    data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(size))
    descriptors = list(array.array("i", ancillary[0][2]))
    child = os.fork()
    if child == 0:
        _become(json.loads(data), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return child


def _become(request: dict[str, object], descriptors: list[int]) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for descriptor in descriptors[STREAMS:]:
        if libc.setns(descriptor, 0):
            os._exit(126)
        os.close(descriptor)
    for number, descriptor in enumerate(descriptors[:STREAMS]):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    os.chdir(str(request["cwd"]))
    sys.argv[:] = request["argv"]  # type: ignore[call-overload]
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


def run(argv: list[str]) -> int:
    request = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}
    streams = [*range(STREAMS), *(os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in NAMESPACES)]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        connection.sendmsg([json.dumps(request).encode()], passed)
        said = connection.recv(16)
    code = int(said or b"1")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["run", *words]:
            sys.exit(run(words))
