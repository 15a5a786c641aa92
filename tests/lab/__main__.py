"""The lab, by hand: build it, look around in it, and make the table of docs/attachments.md.

python -m tests.lab build          build what is missing
python -m tests.lab run FILE [PART OF A NAME ...]
                                   bring it up, make the table, write it as JSON, take it down
python -m tests.lab up | down      for looking around
python -m tests.lab node NODE WORD ...   a command on a node of a lab that is up

TESTS_OF_TORCHNET_LAB=NAME            another lab beside the first
TESTS_OF_TORCHNET_LAB_RESULTS=FILE    pytest takes the results of an earlier run from this file
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    # A cluster may be up beside it: the lab's namespaces and files have names of their own.
    os.environ["TESTS_OF_TORCHNET_NAME"] = os.environ.get("TESTS_OF_TORCHNET_LAB") or "torchnet-lab"
    from tests.cluster.shell import ClusterFailure, say
    from tests.lab import recipes

    try:
        if arguments == ["build"]:  # which needs nothing of torchnet's own environment
            recipes.build()
            return 0
        from tests.cluster.places import RUN
        from tests.lab import lab

        match arguments:
            case ["up"]:
                recipes.build()
                lab.up()
            case ["down"]:
                lab.down()
            case ["node", node, *words] if words:
                if not RUN.exists():
                    raise ClusterFailure("no lab is up: python -m tests.lab up")
                lab.enter_control_plane()
                answer = lab.Lab().node(node).ask(*words)
                print(answer.stdout, end="")
                print(answer.stderr, end="", file=sys.stderr)
                return answer.code
            case ["run", file, *only]:
                from tests.lab import experiments

                recipes.build()
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # take it down then, too
                experiments.run(Path(file), only)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except ClusterFailure as failure:
        say(f"error: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
