"""Command lines of torchrun, to be run under both launchers; most are from PyTorch's own launcher tests.

Source:
    test/distributed/launcher/test_run.py, launch_test.py, and test/distributed/elastic/ (multiprocessing/api_test.py,
    multiprocessing/tail_log_test.py, agent/server/test/local_elastic_agent_test.py) of PyTorch 2.15.
"""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass, field

SCRIPTS = {
    "echo.py": """
        import os, sys
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
                 "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT",
                 "TORCHELASTIC_MAX_RESTARTS", "OMP_NUM_THREADS", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
                 "CUDA_VISIBLE_DEVICES", "TORCHELASTIC_SIGNALS_TO_HANDLE")
        values = [f"{name}={os.environ.get(name)}" for name in names]
        os.write(1, " ".join(["out", *sys.argv[1:], *values, "\\n"]).encode())
        os.write(2, f"err {os.environ['RANK']}\\n".encode())
    """,
    "id.py": """
        import os
        os.write(1, f"{os.environ['TORCHELASTIC_RUN_ID']} {os.environ['ROLE_NAME']}\\n".encode())
    """,
    "role.py": """
        import os
        os.write(1, f"{os.environ['ROLE_NAME']}\\n".encode())
    """,
    "package/__main__.py": """
        import os, sys
        os.write(1, f"{__package__} {sys.argv[1:]}\\n".encode())
    """,
    "touch.py": """
        import os, sys
        for name in sys.argv[1:]:
            open(name, "w").close()
        open("rank-" + os.environ["RANK"], "w").close()
    """,
    "stdin.py": """
        import sys
        print(repr(sys.stdin.read()))
    """,
    "once.py": """
        import os, sys
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        open(f"{os.environ['RANK']}.{attempt}", "w").close()
        sys.exit(int(attempt == "0" and os.environ["RANK"] == "1"))
    """,
    "fail.py": """
        import os, sys, time
        open("ran-" + os.environ["RANK"], "w").close()
        while not os.path.exists("ran-0"):
            time.sleep(0.01)
        if os.environ["RANK"] == "0":
            time.sleep(60)
        sys.exit(int(sys.argv[1]))
    """,
    # The seconds that importing torch takes are those of one rank.
    "record.py": """
        import os, time
        if os.environ["RANK"] == "0":
            time.sleep(60)
        from torch.distributed.elastic.multiprocessing.errors import record
        @record
        def main():
            raise ValueError("oh no")
        main()
    """,
    "killed.py": """
        import os, signal, sys, time
        if os.environ["RANK"] == "0":
            time.sleep(60)
        from torch.distributed.elastic.multiprocessing.errors import record
        @record
        def main():
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        main()
    """,
    "reduce.py": """
        import os, sys
        import torch
        import torch.distributed as dist
        dist.init_process_group("gloo", init_method=sys.argv[1])
        one = torch.ones(1)
        dist.all_reduce(one)
        store = dist.TCPStore("localhost", int(sys.argv[2]), 2, dist.get_rank() == 0)
        dist.barrier()
        os.write(1, f"{one.item()} {sum(store.add('n', 1) > 0 for _ in range(3))}\\n".encode())
        dist.barrier()
        dist.destroy_process_group()
    """,
    "leaver.py": """
        import os, time
        import torch.distributed as dist
        dist.init_process_group("gloo")
        dist.barrier()
        if dist.get_rank() == 0:
            os._exit(0)
        time.sleep(1)
        dist.distributed_c10d._get_default_store().add("n", 1)
    """,
    "save.py": """
        import os, signal, sys, time
        rank = os.environ["RANK"]
        def save(number, frame):
            time.sleep(0.5)
            open(f"saved-{rank}-{signal.Signals(number).name}", "w").close()
            sys.exit(0)
        for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1"):
            signal.signal(getattr(signal, name), save)
        try:
            open(f"ready-{rank}", "w").close()
            while True:
                time.sleep(0.05)
        except KeyboardInterrupt:
            save(signal.SIGINT, None)
    """,
    "stubborn.py": """
        import os, signal, time
        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        open("ready-" + os.environ["RANK"], "w").close()
        time.sleep(600)
    """,
    "leave.py": """
        import subprocess
        subprocess.Popen(["sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; touch uploaded"])
    """,
    "run.sh": """
        echo "$RANK of $WORLD_SIZE: $1"
    """,
}
SAME, REFUSED, DIFFERS = "same", "refused", "differs"
SUCCESS, FAILURE = "0", "failed"
PORT = "PORT"  # in a line: a free one


@dataclass(frozen=True)
class Row:
    """A line.

    Attributes:
        words: What follows ``torchrun`` or ``torchnet launch``.
        verdict: What torchnet must do: the same as torchrun, refuse it as torchrun does, or differ and say so.
        env: Additional variables.
        stdin: The standard input.
        number: The signal that the launcher gets once both ranks are ready; 0 for none.
        logs: The folder of the log files, whose files are compared too.
        end: How torchrun ends.
        says: A pattern for torchnet's standard error: why it refuses, or what differs.
        starts: How often the line is started, as on several hosts.
        command: Whether it is torchrun's real command; a fork of the server saves the time of importing torch.
        waits: Whether torchrun only waits, for hosts that do not come.
    """

    words: str
    verdict: str = SAME
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    number: int = 0
    logs: str = ""
    end: str = SUCCESS
    says: str = ""
    starts: int = 1
    command: bool = False
    waits: bool = False

    @property
    def shown(self) -> str:
        """The line as in a shell, with its variables, standard input and signal."""
        variables = "".join(f"{name}={shlex.quote(value)} " for name, value in self.env.items())
        stdin = f" < {self.stdin.splitlines()[0]}" if self.stdin else ""
        number = f", {signal.Signals(self.number).name}" if self.number else ""
        starts = f", started {self.starts} times" if self.starts > 1 else ""
        return f"{variables}{self.words}{stdin}{number}{starts}"


def _refused(words: str, says: str) -> Row:
    return Row(words, REFUSED, end=FAILURE, says=says)


def _stopped(words: str, number: int, **env: str) -> Row:
    return Row(words, number=number, end=FAILURE, env=env)


# Each line is one write, so that the ranks' lines do not mix under torchrun, either.
TWO = "--nnodes 1 --nproc-per-node 2"
_TEMPLATE = "${role_name}/${rank}/${local_rank}/${x} "
ROWS = (
    Row("--standalone --nproc-per-node 2 echo.py a", command=True),
    Row("--nnodes=1 --nproc_per_node=4 --monitor_interval=1 --start_method=spawn echo.py --foo"),
    Row("--nnodes 1:1 --nproc-per-node cpu --max_restarts=2 echo.py"),
    Row("--nproc-per-node auto echo.py"),
    Row("--nproc-per-node 2 --master-addr localhost --master-port PORT --node-rank 0 echo.py"),
    Row(
        "--nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-id pair --rdzv-endpoint localhost:PORT echo.py",
        starts=2,
    ),
    Row(f"{TWO} -m package x"),
    Row(f"{TWO} --run-path echo.py a"),
    Row("--nproc_per_node=1 --standalone touch.py"),
    Row(f"{TWO} touch.py run_${{local_rank}}.txt cost$$5"),
    Row(f"{TWO} --no-python sh -c 'echo $RANK ${{local_rank}}'"),
    Row(f"{TWO} --no_python sh run.sh arg"),
    Row(
        "sh run.sh arg",
        env={
            "PET_NNODES": "1",
            "PET_NPROC_PER_NODE": "2",
            "PET_RDZV_ID": "1",
            "PET_MONITOR_INTERVAL": "1",
            "PET_START_METHOD": "spawn",
            "PET_NO_PYTHON": "1",
        },
    ),
    Row("once.py", env={"PET_NPROC_PER_NODE": "2", "PET_MAX_RESTARTS": "1"}),
    Row(f"{TWO} --rdzv-backend c10d --rdzv-endpoint localhost:0 --rdzv-id My_Job --role trainer id.py"),
    Row(f"{TWO} --virtual-local-rank echo.py"),
    Row("--nproc-per-node 2 echo.py", env={"CUDA_VISIBLE_DEVICES": "0,1,2,3"}),
    Row("--nproc-per-node 2 echo.py", env={"CUDA_VISIBLE_DEVICES": "0"}),
    Row(f"{TWO} --virtual_local_rank echo.py", env={"CUDA_VISIBLE_DEVICES": "3,1"}),
    Row(f"{TWO} reduce.py env:// PORT"),
    Row(f"{TWO} --local-ranks-filter 1 echo.py"),
    Row(f"{TWO} --log-dir logs --redirect=3 echo.py", logs="logs"),
    Row(f"{TWO} --log-dir logs -r 0:1,1:2 echo.py", logs="logs"),
    Row(f"{TWO} --log_dir=logs -t=3 echo.py", logs="logs"),
    Row(f"{TWO} --log-dir logs -r 3 -t 0:1 --max-restarts 1 once.py", logs="logs"),
    Row(f"{TWO} -r 3 echo.py"),
    Row(f"{TWO} -t 3 --log-dir logs --log-line-prefix-template '{_TEMPLATE}' role.py", logs="logs"),
    Row(f"{TWO} -t 3 role.py", env={"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": _TEMPLATE}),
    Row("--nnodes 1 stdin.py", stdin="line1\nline2\n"),
    Row("--standalone - x", stdin="import sys; print(sys.argv)\n"),
    Row(f"{TWO} --max-restarts 1 once.py"),
    Row(f"{TWO} fail.py 3", end=FAILURE),
    Row(
        f"{TWO} --log-dir logs -r 3 record.py",
        logs="logs",
        env={"TORCHELASTIC_ERROR_FILE": "reply.json"},
        end=FAILURE,
    ),
    Row(f"{TWO} killed.py SIGKILL", env={"TORCHELASTIC_ERROR_FILE": "reply.json"}, end=FAILURE),
    _stopped(f"{TWO} save.py", signal.SIGINT),
    _stopped(f"{TWO} save.py", signal.SIGTERM),
    _stopped(f"{TWO} save.py", signal.SIGHUP),
    _stopped(f"{TWO} save.py", signal.SIGQUIT),
    _stopped(f"{TWO} --signals-to-handle=SIGTERM,SIGUSR1 save.py", signal.SIGUSR1),
    _stopped(f"{TWO} --shutdown-timeout 1 stubborn.py", signal.SIGTERM),
    _stopped(f"{TWO} stubborn.py", signal.SIGTERM, PET_SHUTDOWN_TIMEOUT="1"),
    _stopped(f"{TWO} stubborn.py", signal.SIGTERM, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="1"),
    Row(f"{TWO} id.py", env={"PYTHON_EXEC": "/bin/echo"}),
    _refused("--nproc-per-node 0 echo.py", "--nproc-per-node"),
    _refused("--nproc-per-node unknown echo.py", "--nproc-per-node"),
    _refused("--nnodes 0 echo.py", "--nnodes"),
    _refused("--nnodes 2:20:30 echo.py", "--nnodes"),
    _refused("--max-restarts -1 echo.py", "--max-restarts"),
    _refused("--tee 5 echo.py", "--tee"),
    _refused("--no-python -m package", "--no-python"),
    _refused("--no-such-flag echo.py", "--no-such-flag"),
    _refused("none.py", r"none\.py: no such file"),
    Row("echo.py", DIFFERS, says=r"\Atorchnet: no --nnodes: 2 nodes, all on this machine; .*--nnodes 1"),
    Row("--nnodes 2 echo.py", DIFFERS, says=r"\Atorchnet: --nnodes 2: all nodes on this machine", waits=True),
    Row(
        f"{TWO} --log-dir logs --duplicate-stdout-filters out echo.py",
        DIFFERS,
        logs="logs",
        says=r"\Atorchnet: --duplicate-stdout-filters has no effect in torchnet: ",
    ),
    Row(
        f"{TWO} leaver.py",
        DIFFERS,
        says="rank 0 has ended: PyTorch's store is in rank 0's process, not in the launcher as under torchrun",
    ),
    Row(
        "--nnodes 1 leave.py",
        DIFFERS,
        says="waiting up to 300 s for processes that ended ranks have left behind: ",
    ),
)


def table() -> str:
    """Return the rows for docs/torchrun.md."""
    return "".join(f"{row.verdict:<8} {row.shown}\n" for row in ROWS)
