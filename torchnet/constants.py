"""Names that other systems define, and values that several packages must agree on, each defined once."""

from __future__ import annotations

from typing import Final

# Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard", v1.3.
STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"
NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"
RESOURCE_ANNOTATION = "k8s.v1.cni.cncf.io/resourceName"  # of an attachment

# The documented ports. The rendezvous (TCP, until the start) and the preflight probes (UDP) use the first; the PyTorch
# store uses a range, moving to the next port at each restart. Scripts may use PyTorch's own defaults themselves: 29500
# of MASTER_PORT and 29400 of torchrun's rendezvous.
JOIN_PORT = 29499
STORE_PORTS = range(29501, 29600)
DEFAULT_MASTER_PORT = 29500

GRACE_SECONDS = 30.0  # from SIGTERM to SIGKILL; torchrun's default
# On Kubernetes: how much longer than --start-timeout agents wait for each other, because they do not see that other
# workers' images are pulled or nodes are added. The launcher, which sees it, stops a run earlier.
COLD_START_SECONDS = 1800.0

# Rails per worker. Cloud instances have up to 16 network cards (`vf*16`), and the size limit of a job's peer table is
# computed for that number (torchnet.network.peer_table).
MAX_RAILS = 16
# Addresses of the local backend: rail r is fcbb:0:800:(ffff-r)::/64; node n has the interface identifier n + 1.
LOCAL_PREFIXES = tuple(f"fcbb:0:800:{0xFFFF - r:x}" for r in range(8))
# With --family ipv4, each rail gets one eighth of the network that RFC 2544 reserves for benchmarks.
LOCAL_BACKEND4 = "198.18.0.0/15"
LOCAL_FRONTEND = "172.30.0.0/16"
LOCAL_PRIMARY = "frontend"

RECEIPT_SCHEMA: Final = "torchnet.receipt/2"
ENV_PREFIX = "TORCHNET_"
ONE_NETWORK = "one network: nothing to prove"  # in a receipt, instead of how its share was counted
START_VARIABLE = "TORCHNET_START"  # for agents: the number of this start of the whole gang
REPLACED_VARIABLE = "TORCHNET_REPLACED"  # for agents: how many of this worker's pods have been replaced
HOST_VARIABLE = "TORCHNET_HOST"  # for pods: the cluster's node, which outlives the pod
POD_IP_VARIABLE = "TORCHNET_POD_IP"  # for pods: their primary address, where rank 0's agent listens
TOKEN_VARIABLE = "TORCHNET_TOKEN_FILE"
# Variables that torchnet sets in a worker's pod; the job's own variables follow them.
POD_VARIABLES = (
    "POD_NAME", "POD_NAMESPACE", "POD_UID", HOST_VARIABLE, POD_IP_VARIABLE, TOKEN_VARIABLE, START_VARIABLE,
    REPLACED_VARIABLE,
)  # fmt: skip
TUNE_PREFIX = "TORCHNET_TUNE_"  # for workers and scripts: the settings of the "tune" table
TABLE_VARIABLE = "TORCHNET_TABLE"  # for scripts: the path of the job's encoded peer table
CONTROL_SUFFIX = ".control"  # of the file beside it: the cookies (64 bits each) of the agent's own sockets


def rail_interface(rail: int) -> str:
    """Return the interface of a rail (``net1`` for rail 0): Multus's default names, which torchnet always requests."""
    return f"net{rail + 1}"


def is_rail(interface: str) -> bool:
    """Return whether ``interface`` is one of the backend's."""
    return interface in {rail_interface(rail) for rail in range(MAX_RAILS)}


# Kubernetes: labels and annotations that identify a run's objects. The project owns no domain. Nobody can ever own one
# below .alt: RFC 9476 reserves it for names outside the DNS. Rejected: torchnet.dev, which anybody may register.
LABEL_PREFIX = "torchnet.alt/"
RUN_LABEL = f"{LABEL_PREFIX}run"
NODE_RANK_LABEL = f"{LABEL_PREFIX}node-rank"  # of plain Pods; the pods of a Job have INDEX_LABEL
INSTANCE_LABEL = "app.kubernetes.io/instance"  # the run's name again, for tools that group objects by it
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
# How many pods of an index the Job replaced because its podFailurePolicy ignored their failure; absent if none.
IGNORED_ANNOTATION = "batch.kubernetes.io/job-index-ignored-failure-count"
ATTEMPT_LABEL = "jobset.sigs.k8s.io/restart-attempt"
SPEC_ANNOTATION = f"{LABEL_PREFIX}spec"
# Version 0.1 had no domain. Its runs are still found by status, logs, attach and down; to be removed with 0.3.
OLD_LABEL_PREFIX = "torchnet/"
OLD_RUN_LABEL = f"{OLD_LABEL_PREFIX}run"
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
POLICY_ANNOTATION = "k8s.v1.cni.cncf.io/policy-for"
COMMON_LABELS = {"app.kubernetes.io/name": "torchnet", "app.kubernetes.io/managed-by": "torchnet"}
# Request and limit of a worker's local disk. The limit leaves room for the caches of a model hub, and stops a worker
# that writes without end before its node comes under disk pressure and evicts other pods.
EPHEMERAL_STORAGE = "1Gi:50Gi"
# Names inside a worker's pod.
JOBSET_JOB = "w"  # short, because it is part of the hostname, RUN-w-0-INDEX
PREPARE, WORKER = "prepare", "worker"
STOPPED_CODE = 143  # exit code of an agent that received SIGTERM
NETWORK_CODE, LOST_CODE = (
    4,
    70,
)  # exit codes of all agents: the backend failed; a worker was lost (docs/exit-codes.md)
REPLACE_CODE = (
    75  # exit code of an agent before the start: another pod may succeed (EX_TEMPFAIL of sysexits.h)
)
CODE_DIR, STATE_DIR, TOKEN_DIR = "/torchnet", "/torchnet-state", "/torchnet-token"
WORK_DIR = "/torchnet-work"  # where the script's folder is unpacked and the scripts run
SCRIPT_DIR = "/code"  # mount path of the volume of --code pvc:
API_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # where clients in pods look for credentials
STATUS_DIR = "/torchnet-status"  # the pod's own annotations, by the downward API
STATUS_FILE, NETWORKS_FILE = "network-status", "networks"
STARTED_FILE = "started"  # in STATE_DIR: a named pipe, which has a writer once the script has started
AGENT_ZIP, CODE_ZIP, SPEC_JSON, TOKEN_KEY = "torchnet.zip", "code.zip", "spec.json", "token"
