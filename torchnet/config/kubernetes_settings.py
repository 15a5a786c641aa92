"""Settings that apply to Kubernetes only; part of the table in `torchnet.config.settings`."""

from __future__ import annotations

from functools import partial

from torchnet.config.setting import Field
from torchnet.constants import EPHEMERAL_STORAGE

_field = partial(Field, only="kubernetes")
_NAME = "an object name: up to 253 characters of a-z, 0-9, - and ."
_SPAN = "a quantity, or REQUEST:LIMIT, such as {}"
_PAIRS = "[DOMAIN/]KEY=VALUE; KEY and VALUE have up to 63 letters, digits, -, _ and ."

KUBERNETES_FIELDS = (
    _field(
        "kubernetes.namespace",
        "--namespace",
        "Namespace of the job.",
        "a DNS label: up to 63 characters of a-z, 0-9 and -",
        "the namespace of the context",
        "NAME",
        short="-n",
    ),
    _field(
        "kubernetes.context",
        "--context",
        "Kubeconfig context to use.",
        "the name of a context (kubectl config get-contexts)",
        "the current context",
        "NAME",
    ),
    _field(
        "kubernetes.kubeconfig",
        "--kubeconfig",
        "Path of the kubeconfig file.",
        "the path of a file",
        "KUBECONFIG, ~/.kube/config, in-cluster",
        "FILE",
        is_path=True,
    ),
    _field(
        "kubernetes.image",
        "--image",
        "Container image with Python and PyTorch. Required.",
        "REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…, TAG not latest",
        metavar="IMAGE",
    ),
    _field(
        "kubernetes.kind",
        "--kind",
        "Kind of the workload: job, jobset (the cluster restarts all workers together) or pods.",
        "job, jobset, pods",
        "job; pods with --static-ips",
        "KIND",
        former_flag="--as",
        former_path="kubernetes.workload",
    ),
    _field("kubernetes.gpus", "--gpus", "GPUs per worker.", "a whole number from 0 to 64", "0", "N"),
    _field(
        "kubernetes.gpu_resource",
        "--gpu-resource",
        "Resource name of the GPUs.",
        "DOMAIN/NAME, such as nvidia.com/gpu or amd.com/gpu",
        "nvidia.com/gpu",
        "NAME",
    ),
    _field(
        "kubernetes.cpus",
        "--cpus",
        "CPUs per worker, as request and limit.",
        _SPAN.format("4, 500m, 500m:2"),
        "1 per process, 4 per GPU",
        "N[:LIMIT]",
    ),
    _field(
        "kubernetes.memory",
        "--memory",
        "Memory per worker, as request and limit.",
        _SPAN.format("16Gi, 1Gi:4Gi"),
        "2Gi per process, 16Gi per GPU",
        "SIZE[:LIMIT]",
    ),
    _field(
        "kubernetes.shm_size",
        "--shm-size",
        "Size of /dev/shm.",
        "a quantity, such as 8Gi",
        "the memory limit",
        "SIZE",
    ),
    _field(
        "kubernetes.ephemeral_storage",
        "--ephemeral-storage",
        "Local disk per worker, as request and limit: its logs, the files that it writes outside of volumes, and "
        "emptydir volumes. A pod that exceeds the limit is evicted.",
        _SPAN.format("20Gi, 1Gi:200Gi"),
        f"{EPHEMERAL_STORAGE}, and for each emptydir volume its size in addition; none with --queue",
        "SIZE",
    ),
    _field(
        "kubernetes.volumes",
        "--volume",
        "Mount a volume: pvc:CLAIM[/SUBPATH]:/PATH[:ro], configmap:NAME[/KEY]:/PATH, secret:NAME[/KEY]:/PATH, "
        "emptydir[:SIZE]:/PATH, csi:DRIVER[,KEY=VALUE…]:/PATH[:ro] or hostpath:/ON/NODE:/PATH[:ro]. Repeatable.",
        "[NAME=]pvc:CLAIM[/SUBPATH]:/PATH[:ro], configmap:NAME[/KEY]:/PATH, secret:NAME[/KEY]:/PATH, "
        "emptydir[:SIZE]:/PATH, csi:DRIVER[,KEY=VALUE…]:/PATH[:ro], hostpath:/ON/NODE:/PATH[:ro]",
        metavar="VOLUME",
        repeat=True,
    ),
    _field(
        "kubernetes.secrets",
        "--secret",
        "Expose the keys of a Secret as environment variables, or as files below /PATH. Repeatable.",
        "NAME or NAME:/PATH",
        metavar="NAME[:/PATH]",
        repeat=True,
    ),
    _field(
        "kubernetes.node_selector",
        "--node-selector",
        "Run on nodes with this label only. Repeatable.",
        _PAIRS,
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.tolerations",
        "--toleration",
        "Tolerate this taint. Repeatable.",
        "KEY[=VALUE][:EFFECT], EFFECT one of NoSchedule, PreferNoSchedule, NoExecute",
        metavar="K[=V][:EFFECT]",
        repeat=True,
    ),
    _field(
        "kubernetes.queue",
        "--queue",
        "LocalQueue of Kueue. A run that it preempts starts again once it is admitted again, except plain pods.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.workload_priority",
        "--workload-priority",
        "WorkloadPriorityClass of Kueue: the priority in the queue. Without it, --priority-class counts.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.topology",
        "--topology",
        "Place of the workers in Kueue's topology: within one domain of this level, where LEVEL is a node label.",
        "required:LEVEL, preferred:LEVEL, unconstrained",
        metavar="HOW[:LEVEL]",
    ),
    _field(
        "kubernetes.max_infra_restarts",
        "--max-infra-restarts",
        "Maximum number of restarts of all workers after a failure of the cluster: an evicted or lost worker, a failed "
        "backend. Needs a JobSet.",
        "a whole number from 0 to 1000",
        "0",
        "N",
    ),
    _field(
        "kubernetes.priority_class", "--priority-class", "PriorityClass of the pods.", _NAME, metavar="NAME"
    ),
    _field(
        "kubernetes.spread",
        "--spread",
        "Spread the workers over the nodes: soft (if possible) or hard (otherwise they stay pending). pack puts them "
        "on few nodes instead, and none leaves it to the scheduler.",
        "none, pack, soft, hard",
        "soft; pack with --gpus",
        "HOW",
    ),
    _field(
        "kubernetes.image_pull_secrets",
        "--image-pull-secret",
        "Secret for pulling the image. Repeatable.",
        _NAME,
        metavar="NAME",
        repeat=True,
    ),
    _field(
        "kubernetes.pod_template",
        "--pod-template",
        "PodTemplate in YAML to merge into the pods, as a strategic merge patch.",
        "the path of a YAML file with metadata and spec",
        metavar="FILE",
        is_path=True,
    ),
    _field(
        "kubernetes.job_template",
        "--job-template",
        "Job or JobSet in YAML with further fields of the workload, such as suspend or activeDeadlineSeconds.",
        "the path of a YAML file with metadata and spec",
        metavar="FILE",
        is_path=True,
    ),
    _field(
        "kubernetes.ttl",
        "--ttl",
        "Let the cluster delete the Job or JobSet, with all that it owns, this long after its end.",
        "10min, 12h, 86400; at least 1min",
        "never",
        "TIME",
    ),
    _field(
        "kubernetes.labels",
        "--label",
        "Add a label to all objects. Repeatable.",
        _PAIRS,
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.annotations",
        "--annotation",
        "Add an annotation to all objects. Repeatable.",
        "[DOMAIN/]KEY=VALUE; KEY has up to 63 letters, digits, -, _ and .",
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.code",
        "--code",
        "Source of the script: configmap (upload its directory), image, or pvc:NAME/PATH.",
        "configmap, image, pvc:NAME/PATH",
        "configmap",
        "WHERE",
    ),
    _field(
        "kubernetes.token_secret",
        "--token-secret",
        "Use an existing Secret for the job's token, under the key token, instead of creating one.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.service_account",
        "--service-account",
        "Run the pods under this ServiceAccount. If DNS fails, the workers ask the API server with its token, which "
        "needs get and list on pods; the script can read the token, too. [default, without a token]",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.static_ips",
        "--static-ips",
        "Addresses of the workers on a rail: FIRST-LAST/LENGTH, or a list. The attachment must use the static IPAM "
        "plugin. The workers then join over the backend, without DNS. Repeat it once per rail.",
        "FIRST-LAST/LENGTH or ADDRESS/LENGTH,…, such as fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64",
        metavar="RANGE",
        repeat=True,
    ),
    _field(
        "kubernetes.run_as",
        "--run-as",
        "User and group of the pods: UID[:GID], or namespace to leave all ids to OpenShift or to an admission policy "
        "of the namespace. GID is UID by default. 0, root, is not allowed under Pod Security restricted.",
        "UID[:GID] (numbers up to 2147483647), namespace",
        "1000",
        "UID[:GID]",
    ),
    _field(
        "kubernetes.fs_group",
        "--fs-group",
        "Group of the pods' volumes, which all processes are members of.",
        "the number of a group, up to 2147483647",
        "the GID of --run-as; none with namespace or root",
        "GID",
    ),
    _field(
        "kubernetes.rdma",
        "--rdma",
        "Add the capability IPC_LOCK, for RDMA on nodes whose container runtime limits locked memory. Takes effect "
        "for root (--run-as 0), or if the image's Python has it as a file capability. The namespace must admit it.",
        "true, false",
        switch=True,
    ),
    _field(
        "kubernetes.network_policy",
        "--network-policy",
        "NetworkPolicy of the job's pods: isolate (allow ingress on eth0 only from pods of the job; this blocks "
        "metrics scrapers such as Prometheus, and other services, but not kubectl logs, exec and port-forward) or none "
        "(create no policy).",
        "isolate, none",
        "isolate",
        "HOW",
    ),
    _field(
        "kubernetes.multi_network_policy",
        "--multi-network-policy",
        "Isolate the job's pods on the rails, too. Needs a MultiNetworkPolicy controller.",
        "true, false",
        switch=True,
    ),
    _field(
        "kubernetes.detach", "--detach", "Return once all workers have started.", "true, false", switch=True
    ),
    _field(
        "kubernetes.keep", "--keep", "Keep the objects when the job has ended.", "true, false", switch=True
    ),
)
