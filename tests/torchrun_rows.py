"""Command lines of torchrun, to be run under both launchers; most are from PyTorch's own launcher tests.

Source:
    test/distributed/launcher/test_run.py, launch_test.py, and test/distributed/elastic/ (multiprocessing/api_test.py,
    multiprocessing/tail_log_test.py, agent/server/test/local_elastic_agent_test.py) of PyTorch 2.15.
"""

from __future__ import annotations

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
        if os.environ["RANK"] == "0":
            time.sleep(60)
        sys.exit(int(sys.argv[1]))
    """,
    "record.py": """
        from torch.distributed.elastic.multiprocessing.errors import record
        @record
        def main():
            raise ValueError("oh no")
        main()
    """,
    "save.py": """
        import os, signal, sys, time
        rank = os.environ["RANK"]
        def save(number, frame):
            time.sleep(1)
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
        subprocess.Popen(["sh", "-c", "sleep 2; touch uploaded"])
    """,
    "run.sh": """
        echo "$RANK of $WORLD_SIZE: $1"
    """,
}
SAME, REFUSED, DIFFERS = "same", "refused", "differs"


@dataclass(frozen=True)
class Row:
    """A line.

    Attributes:
        words: What follows ``torchrun`` or ``torchnet launch``.
        verdict: What torchnet must do: the same as torchrun, refuse it as torchrun does, or differ and say so in its
            first line of output.
        env: Additional variables.
        stdin: The standard input.
        number: The signal that the launcher gets once both ranks are ready; 0 for none.
        logs: The folder of the log files, whose files are compared too.
    """

    words: str
    verdict: str = SAME
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    number: int = 0
    logs: str = ""

    @property
    def shown(self) -> str:
        """The line as in a shell, with its variables, standard input and signal."""
        variables = "".join(f"{name}={value} " for name, value in self.env.items())
        stdin = f" < {self.stdin.splitlines()[0]}" if self.stdin else ""
        number = f", {signal.Signals(self.number).name}" if self.number else ""
        return f"{variables}{self.words}{stdin}{number}"


# Each line is one write, so that the ranks' lines do not mix under torchrun, either.
TWO = "--nnodes 1 --nproc-per-node 2"
ROWS = (
    Row("--standalone --nproc-per-node 2 echo.py a"),
    Row("--nnodes=1 --nproc_per_node=4 --monitor_interval=1 --start_method=spawn echo.py --foo"),
    Row("--nnodes 1:1 --nproc-per-node cpu --max_restarts=2 echo.py"),
    Row("--nproc-per-node 2 --master-addr localhost --master-port 29789 --node-rank 0 echo.py"),
    Row(f"{TWO} -m package x"),
    Row("--nproc_per_node=1 --standalone touch.py"),
    Row(f"{TWO} touch.py run_${{local_rank}}.txt cost$$5"),
    Row(f"{TWO} --no-python sh -c 'echo $RANK ${{local_rank}}'"),
    Row(f"{TWO} --no_python sh run.sh arg"),
    Row(f"{TWO} --rdzv-backend c10d --rdzv-endpoint localhost:0 --rdzv-id My_Job --role trainer id.py"),
    Row(f"{TWO} --virtual-local-rank echo.py"),
    Row(f"{TWO} --virtual_local_rank echo.py", env={"CUDA_VISIBLE_DEVICES": "3,1"}),
    Row(f"{TWO} --local-ranks-filter 1 echo.py"),
    Row(f"{TWO} --log-dir logs --redirect=3 echo.py", logs="logs"),
    Row(f"{TWO} --log-dir logs -r 0:1,1:2 echo.py", logs="logs"),
    Row(f"{TWO} --log_dir=logs -t=3 echo.py", logs="logs"),
    Row(f"{TWO} --log-dir logs -r 3 -t 0:1 --max-restarts 1 once.py", logs="logs"),
    Row(f"{TWO} -r 3 echo.py"),
    Row(
        f"{TWO} -t 3 --log-dir logs --log-line-prefix-template "
        "'${role_name}/${rank}/${local_rank}/${x} ' role.py"
    ),
    Row("--nnodes 1 stdin.py", stdin="line1\nline2\n"),
    Row("--standalone - x", stdin="import sys; print(sys.argv)\n"),
    Row(f"{TWO} --max-restarts 1 once.py"),
    Row(f"{TWO} fail.py 3", env={"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5"}),
    Row(f"{TWO} --log-dir logs -r 3 record.py", logs="logs", env={"TORCHELASTIC_ERROR_FILE": "reply.json"}),
    Row(f"{TWO} save.py", number=signal.SIGINT),
    Row(f"{TWO} save.py", number=signal.SIGTERM),
    Row(f"{TWO} save.py", number=signal.SIGHUP),
    Row(f"{TWO} save.py", number=signal.SIGQUIT),
    Row(f"{TWO} --signals-to-handle=SIGTERM,SIGUSR1 save.py", number=signal.SIGUSR1),
    Row(f"{TWO} --shutdown-timeout 1 stubborn.py", number=signal.SIGTERM),
    Row("--nnodes 1 leave.py"),
    Row(f"{TWO} id.py", env={"PYTHON_EXEC": "/bin/echo"}),
    Row("--nproc-per-node 0 echo.py", REFUSED),
    Row("--nproc-per-node unknown echo.py", REFUSED),
    Row("--nnodes 0 echo.py", REFUSED),
    Row("--nnodes 2:20:30 echo.py", REFUSED),
    Row("--max-restarts -1 echo.py", REFUSED),
    Row("--tee 5 echo.py", REFUSED),
    Row("--no-python -m package", REFUSED),
    Row("--no-such-flag echo.py", REFUSED),
    Row("none.py", REFUSED),
    Row("echo.py", DIFFERS),
    Row("--nnodes 2 echo.py", DIFFERS),
)


def table() -> str:
    """Return the rows for docs/torchrun.md."""
    return "".join(f"{row.verdict:<8} {row.shown}\n" for row in ROWS)
