"""The one table of what a job can be told: path, flag, variable, meaning and valid values of each field.

The command line's options and its help, the environment and file layers, the messages about wrong values and
the dry run all read this table, so a field is added here and in `torchnet.spec.model`, and nowhere else.
Nothing but the standard library is imported: ``torchnet launch --help`` has 0.15 s.
"""

from __future__ import annotations

from torchnet.spec.field import GROUPS, PLACES, Field
from torchnet.spec.kubernetes_fields import KUBERNETES_FIELDS

__all__ = ["BY_PATH", "FIELDS", "GROUPS", "PLACES", "TABLES", "Field"]

_DURATION = "10, 10s, 1.5s, 5min, 1h30m"

FIELDS = (
    Field("on", "--on", "Where the workers run: local, kubernetes.", ", ".join(PLACES), "local", "WHERE"),
    Field(
        "script",
        "",
        "The script (or module, or command) that every process runs.",
        "the path of a script, after all of torchnet's flags",
        is_path=True,
    ),
    Field("args", "", "The script's own arguments.", "a list of texts without NUL"),
    Field(
        "module", "--module", "SCRIPT is a module: python -m SCRIPT.", "true, false", short="-m", switch=True
    ),
    Field("no_python", "--no-python", "SCRIPT is run as it is, without Python.", "true, false", switch=True),
    Field("nnodes", "--nnodes", "Number of workers (nodes).", "a whole number from 1 to 10000", "2", "N"),
    Field(
        "nproc_per_node",
        "--nproc-per-node",
        "Processes on each worker: a number, gpu, cpu or auto.",
        "a whole number from 1 to 1024, gpu, cpu, auto",
        "the worker's share of the GPUs, else 1",
        "N",
    ),
    Field(
        "standalone",
        "--standalone",
        "One node, as torchrun means it: --nnodes 1.",
        "true, false",
        switch=True,
    ),
    Field(
        "run_id",
        "--run-id",
        "Name of the run.",
        "a DNS label: at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        "made up at launch",
        "NAME",
    ),
    Field(
        "env",
        "--env",
        "Environment variable for the script; may repeat.",
        "NAME=VALUE, the name made of letters, digits and _",
        metavar="NAME=VALUE",
        repeat=True,
    ),
    Field(
        "env_file",
        "--env-file",
        "File of NAME=VALUE lines for the script's environment; may repeat. --env goes before it.",
        "the path of a text file with NAME=VALUE lines",
        metavar="FILE",
        repeat=True,
        is_path=True,
    ),
    Field(
        "network.networks",
        "--network",
        "Backend network: [NAMESPACE/]NAME[*COUNT][=RESOURCE] of an attachment, may repeat for rails; locally nothing "
        "(two real networks) or loopback.",
        "with --on local: loopback, or nothing; with --on kubernetes: [NAMESPACE/]NAME[*COUNT][=RESOURCE]",
        "locally two networks of its own",
        "NAME",
        repeat=True,
    ),
    Field(
        "network.rails",
        "--rails",
        "Backend networks per worker, locally.",
        "a whole number from 1 to 8",
        "1",
        "N",
        only="local",
    ),
    Field(
        "network.rate",
        "--rate",
        "Rate of each rail, as tc writes it: 1gbit, 100mbit.",
        "1gbit, 2.5gbit, 100mbit, … from 1mbit to 30gbit",
        "unlimited",
        "RATE",
        only="local",
    ),
    Field(
        "network.mtu",
        "--mtu",
        "MTU of the rails.",
        "a whole number from 1280 to 65535",
        "9000",
        "BYTES",
        only="local",
    ),
    Field(
        "network.family",
        "--family",
        "Address family: auto, ipv4, ipv6.",
        "auto, ipv4, ipv6",
        "auto",
        "FAMILY",
    ),
    Field(
        "network.preflight",
        "--preflight",
        "Pairs probed before the start: auto (all up to 64 workers) or full.",
        "auto, full",
        "auto",
        "HOW",
    ),
    Field(
        "network.faults",
        "--fault",
        "Fault planted in the local networks, to see what happens; may repeat.",
        "NODE:INTERFACE:KIND[=VALUE][@SECONDS[+SECONDS]], as in node-1:net1:no-carrier@2+3",
        "none",
        "FAULT",
        repeat=True,
        only="local",
    ),
    Field(
        "run.max_restarts",
        "--max-restarts",
        "Restarts of the whole group after a failure.",
        "a whole number from 0 to 1000",
        "0",
        "N",
    ),
    Field("run.grace", "--grace", "From SIGTERM to SIGKILL.", _DURATION, "10s", "TIME"),
    Field("run.link_grace", "--link-grace", "A link gone longer stops the job.", _DURATION, "5s", "TIME"),
    Field(
        "run.stall_timeout",
        "--stall-timeout",
        "Silence between peers before a stall is reported; 0 is never.",
        _DURATION,
        "5min",
        "TIME",
    ),
    Field(
        "run.stall_action",
        "--stall-action",
        "After a stall: report, stop.",
        "report, stop",
        "report",
        "ACTION",
    ),
    Field("run.start_timeout", "--start-timeout", "For the start of all workers.", _DURATION, "5min", "TIME"),
    Field("run.timeout", "--timeout", "For the whole job.", _DURATION, "none", "TIME"),
    Field(
        "run.stdin_rank",
        "--stdin-rank",
        "The rank that gets the terminal's input, for breakpoint().",
        "a rank of the job, counted from 0",
        "none",
        "RANK",
        only="local",
    ),
    Field(
        "output.log_dir",
        "--log-dir",
        "Directory for one log file per rank.",
        "the path of a directory",
        "none",
        "DIR",
        is_path=True,
    ),
    Field(
        "output.tee",
        "--tee",
        "Streams to the log files and the console: 1 stdout, 2 stderr, 3 both, or LOCAL_RANK:N,…",
        "0, 1, 2, 3, or LOCAL_RANK:N,… as in 0:1,1:3",
        "0",
        "STREAMS",
        short="-t",
        only="local",
    ),
    Field(
        "output.redirects",
        "--redirects",
        "Streams to the log files alone; values as for --tee.",
        "0, 1, 2, 3, or LOCAL_RANK:N,… as in 0:1,1:3",
        "0",
        "STREAMS",
        short="-r",
        only="local",
    ),
    Field("output.ranks", "--ranks", "Ranks shown on the console.", "0,3 or 0-3", "all", "RANKS"),
    Field(
        "output.json",
        "--json",
        "File for the receipt, as JSON; - is stdout.",
        "the path of a file, or - for stdout",
        "none",
        "FILE",
        is_path=True,
    ),
    Field(
        "output.min_share",
        "--min-share",
        "Exit with 5 where the backend carried less of the peers' bytes.",
        "a number from 0 to 1",
        "none",
        "SHARE",
    ),
    Field(
        "output.quiet",
        "--quiet",
        "Neither progress nor the receipt's table.",
        "true, false",
        short="-q",
        switch=True,
    ),
    *KUBERNETES_FIELDS,
)

BY_PATH = {field.path: field for field in FIELDS}
TABLES = ("network", "run", "output", "kubernetes")
