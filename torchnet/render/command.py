"""What the two containers of a worker run: ``torchnet agent`` with every flag spelled out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torchnet.names import (
    AGENT_ZIP,
    ATTEMPT_LABEL,
    CODE_DIR,
    CODE_ZIP,
    INDEX_LABEL,
    NODE_RANK_LABEL,
    RUN_LABEL,
    START_VARIABLE,
    STATE_DIR,
    WORK_DIR,
    rail_interface,
)
from torchnet.render.attachments import Rail
from torchnet.render.code import Code
from torchnet.spec import kubernetes
from torchnet.spec.model import JobSpec

# The Job controller sets it in each container; Kubernetes replaces $(NAME) in arguments.
INDEX = "$(JOB_COMPLETION_INDEX)"


def literal(text: str) -> str:
    """``text`` as it has to stand in a command, an argument or a variable so that Kubernetes leaves it as it is.

    There ``$(NAME)`` is replaced and ``$$`` is how a dollar is written (k8s.io/kubernetes/third_party/forked/golang/
    expansion), even where no variable has that name.
    """
    return re.sub(r"\$(?=[($])", "$$", text)


def processes(job: JobSpec) -> int:
    """How many processes each worker starts."""
    return kubernetes.processes(job.kubernetes, job.nproc_per_node)


def command(job: JobSpec, run_id: str, phase: str, rails: list[Rail], code: Code) -> list[str]:
    """The command of the container for ``phase``, prepare or work; the same for every worker."""
    words = ["python3", f"{CODE_DIR}/{AGENT_ZIP}", "agent", "--phase", phase, "--state", STATE_DIR]
    if phase == "prepare" and code.code_zip is not None:
        words += ["--code", f"{CODE_DIR}/{CODE_ZIP}", "--workdir", WORK_DIR]
    for flag, value in _flags(job, run_id, rails):
        words += [flag, value]
    words += ["--measure"] if job.output.measure else []
    words += ["--module"] if job.module else ["--no-python"] if job.no_python else []
    return [*words, literal(code.script), *map(literal, job.args)]


def _rank0_labels(job: JobSpec, run_id: str) -> str:
    """So that a worker need not ask for its own pod first, whose labels would tell, too."""
    rank = NODE_RANK_LABEL if job.kubernetes.form == "pods" else INDEX_LABEL
    # Pods of two starts of a gang are there side by side for a moment.
    start = f",{ATTEMPT_LABEL}=$({START_VARIABLE})" if job.kubernetes.form == "jobset" else ""
    return f"{RUN_LABEL}={run_id},{rank}=0{start}"


def _flags(job: JobSpec, run_id: str, rails: list[Rail]) -> Iterator[tuple[str, str]]:
    run = job.run
    yield "--run-id", run_id
    yield "--nnodes", str(job.nnodes)
    yield "--node-rank", INDEX
    yield "--name", f"{run_id}-{INDEX}"
    yield "--nproc-per-node", str(processes(job))
    if job.kubernetes.static_ips:
        # Each worker's own addresses stand in TORCHNET_ADDRESS_SOURCE.
        yield "--rank0", ",".join(rail.addresses[0].partition("/")[0] for rail in rails)
    else:
        yield "--address-source", "multus-status"
        yield "--rank0-labels", _rank0_labels(job, run_id)
    for number, rail in enumerate(rails):
        yield "--attachment", f"{rail.namespace}/{rail.name}@{rail_interface(number)}"
    yield "--family", job.network.family
    yield "--preflight", job.network.preflight
    # A JobSet restarts the gang, so that the pods need not; both would multiply.
    yield "--max-restarts", str(0 if job.kubernetes.form == "jobset" else run.max_restarts)
    yield "--grace", f"{run.grace:g}"
    yield "--link-grace", f"{run.link_grace:g}"
    yield "--stall-timeout", f"{run.stall_timeout:g}"
    yield "--stall-action", run.stall_action
    yield "--start-timeout", f"{run.start_timeout:g}"
    if job.output.min_share is not None:
        yield "--min-share", f"{job.output.min_share:g}"
