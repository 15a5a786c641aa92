"""Names that other systems define, and numbers that several parts must agree on, each written once."""

from __future__ import annotations

# Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard", v1.3.
STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"
NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"

# The one documented range of ports: the join (TCP) and the preflight's probes (UDP) use the first, PyTorch's
# store the others, one for each restart in turn.
PORT_FIRST = 29500
PORT_LAST = 29599
JOIN_PORT = PORT_FIRST
STORE_PORTS = range(PORT_FIRST + 1, PORT_LAST + 1)

GRACE_SECONDS = 30.0  # from SIGTERM to SIGKILL: torchrun's default

# Rails of one worker. Clouds give up to 16 network cards to a machine (`vf*16`); the size of a job's table is bounded
# for so many (torchnet.network.peer_table).
MAX_RAILS = 16
# The local backend's addresses: rail r is fcbb:0:800:(ffff-r)::/64, node n of it has interface part n + 1.
LOCAL_PREFIXES = tuple(f"fcbb:0:800:{0xFFFF - r:x}" for r in range(8))
# With --family ipv4, the same by the eighths of the network that RFC 2544 sets aside for tests.
LOCAL_BACKEND4 = "198.18.0.0/15"
LOCAL_FRONTEND = "172.30.0.0/16"
LOCAL_ATTACHMENTS = ("default/backend-network",) + tuple(f"default/backend-network-{r}" for r in range(2, 9))
LOCAL_PRIMARY = "frontend"

RECEIPT_SCHEMA = "torchnet.receipt/1"
ENV_PREFIX = "TORCHNET_"
START_VARIABLE = "TORCHNET_START"  # of agents: which start of the whole gang this is
REPLACED_VARIABLE = "TORCHNET_REPLACED"  # of agents: how many pods were replaced for this worker already
HOST_VARIABLE = "TORCHNET_HOST"  # of pods: the cluster's node, which outlives them
TOKEN_VARIABLE = "TORCHNET_TOKEN_FILE"
# What a worker's pod gets from torchnet before the variables of the job.
POD_VARIABLES = (
    "POD_NAME", "POD_NAMESPACE", "POD_UID", HOST_VARIABLE, TOKEN_VARIABLE, START_VARIABLE, REPLACED_VARIABLE
)  # fmt: skip
TUNE_PREFIX = "TORCHNET_TUNE_"  # of workers and scripts: the settings of the table "tune"
TABLE_VARIABLE = "TORCHNET_TABLE"  # for scripts: the path of the job's encoded table
CONTROL_SUFFIX = ".control"  # of the file beside it: the cookies (64 bits each) of the agent's own sockets


def rail_interface(rail: int) -> str:
    """``net1`` for rail 0: the names that Multus gives by default and torchnet always asks for."""
    return f"net{rail + 1}"


def is_rail(interface: str) -> bool:
    """Whether it is one of the backend's."""
    return interface in {rail_interface(rail) for rail in range(MAX_RAILS)}


# Kubernetes: how a run's objects are found again.
RUN_LABEL = "torchnet/run"
NODE_RANK_LABEL = "torchnet/node-rank"  # of plain Pods; a Job's have the next one
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
# How many pods of an index a Job has replaced, where its policy ignored their ends; missing for none.
IGNORED_ANNOTATION = "batch.kubernetes.io/job-index-ignored-failure-count"
ATTEMPT_LABEL = "jobset.sigs.k8s.io/restart-attempt"
SPEC_ANNOTATION = "torchnet/spec"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
POLICY_ANNOTATION = "k8s.v1.cni.cncf.io/policy-for"
COMMON_LABELS = {"app.kubernetes.io/name": "torchnet", "app.kubernetes.io/managed-by": "torchnet"}
# … and what a worker's pod is made of.
JOBSET_JOB = "w"  # short: it is a part of the hostname, RUN-w-0-INDEX
PREPARE, WORKER = "prepare", "worker"
STOPPED_CODE = 143  # of an agent that got a SIGTERM
REPLACE_CODE = 75  # of prepare: another pod could do (EX_TEMPFAIL of sysexits.h)
CODE_DIR, STATE_DIR, TOKEN_DIR = "/torchnet", "/torchnet-state", "/torchnet-token"
WORK_DIR = "/torchnet-work"  # where the script's folder is unpacked, and the scripts run
SCRIPT_DIR = "/code"  # … or where the volume of --code pvc: stands
API_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # where clients in pods look for their account
AGENT_ZIP, CODE_ZIP, TOKEN_KEY = "torchnet.zip", "code.zip", "token"
