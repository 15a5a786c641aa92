"""Scripts that the tests of several modules launch, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

# Says that it ran, and over what.
RAN = """
    import os
    print("ran", os.environ["GLOO_SOCKET_IFNAME"], flush=True)
"""

# Rank 1 sends to rank 0 and waits for its answer, over and over, for so many seconds ("inf": for as long as it can).
# The file, if one is named, holds the time of the last exchange.
TALK = """
    import os, socket, sys, time
    end, file = time.monotonic() + float(sys.argv[1]), sys.argv[2] if sys.argv[2:] else os.devnull
    if os.environ["RANK"] == "0":
        server = socket.create_server((os.environ["MASTER_ADDR"], 7000), family=socket.AF_INET6)
        connection, _ = server.accept()
        while data := connection.recv(4000):
            connection.sendall(data)
            with open(file, "w") as out:
                out.write(str(time.monotonic()))
    else:
        for _ in range(200):
            try:
                connection = socket.create_connection((os.environ["MASTER_ADDR"], 7000))
                break
            except OSError:
                time.sleep(0.05)
        print("talking", flush=True)
        counted = 0
        while time.monotonic() < end:
            connection.sendall(b"x" * 4000)
            left = 4000
            while left:
                left -= len(connection.recv(left))
            counted += 1
            if counted % 50 == 0:
                print("exchanged", counted, flush=True)
            time.sleep(0.02)
        print("done", flush=True)
"""


def ran(folder: Path) -> list[str]:
    """The files ``ran-…`` in ``folder``: scripts of these tests leave one for each rank."""
    return sorted(path.name for path in folder.glob("ran-*"))
