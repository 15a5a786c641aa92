"""A host outside the job: python -m tests.traffic.outsider PID FOLDER IPV4.

Enters the namespaces of the local networks' bridges (those of process PID), takes an address on the frontend and on the
first rail, and answers as the plan in FOLDER says.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.traffic.flows import Process
from tests.traffic.plan import OUTSIDER, OUTSIDER_ADDRESSES, OUTSIDER_PREFIX
from torchnet.linux import link_setup, namespaces
from torchnet.linux.netlink import Netlink
from torchnet.local.topology import FRONTEND_PREFIX


def enter(pid: str, ipv4: bool) -> None:
    kinds = {"user": namespaces.NEWUSER, "net": namespaces.NEWNET}
    spaces = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds}
    for kind, number in kinds.items():
        namespaces.setns(spaces[kind], number)
    fabric = Netlink()
    front, back = (link_setup.index_of(fabric, name) for name in ("front", "back0"))
    if not ipv4:
        Path("/proc/sys/net/ipv6/conf/back0/disable_ipv6").write_text("0")
    on_front, on_back = OUTSIDER_ADDRESSES[ipv4]
    fabric.request(link_setup.address(front, on_front, FRONTEND_PREFIX))
    fabric.request(link_setup.address(back, on_back, OUTSIDER_PREFIX[ipv4]))


if __name__ == "__main__":
    enter(sys.argv[1], sys.argv[3] == "True")
    Process(Path(sys.argv[2]), OUTSIDER).run()
