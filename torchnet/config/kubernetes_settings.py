"""Settings that apply to Kubernetes only; part of the table in `torchnet.config.settings`."""

from __future__ import annotations

from functools import partial

from torchnet.config.setting import Field

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
        "kubernetes.workload",
        "--as",
        "Workload: job, jobset (the cluster restarts all workers together) or pods.",
        "job, jobset, pods",
        "job; pods with --static-ips",
        "KIND",
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
        "kubernetes.volumes",
        "--volume",
        "Mount a volume: pvc:CLAIM:/PATH[:ro], configmap:NAME:/PATH, secret:NAME:/PATH, emptydir[:SIZE]:/PATH or "
        "hostpath:/ON/NODE:/PATH[:ro]. Repeatable.",
        "[NAME=]pvc:CLAIM:/PATH[:ro], configmap:NAME:/PATH, secret:NAME:/PATH, emptydir[:SIZE]:/PATH, "
        "hostpath:/ON/NODE:/PATH[:ro]",
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
        "Spread the workers over the nodes: none, soft (if possible) or hard (otherwise they stay pending).",
        "none, soft, hard",
        "soft",
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
        "Use an existing ServiceAccount that is allowed to get and list pods, instead of creating one with a Role.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.static_ips",
        "--static-ips",
        "Addresses of the workers on a rail: FIRST-LAST/LENGTH, or a list. The attachment must use the static IPAM "
        "plugin. The pods then need no access to the API server. Repeat it once per rail.",
        "FIRST-LAST/LENGTH or ADDRESS/LENGTH,…, such as fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64",
        metavar="RANGE",
        repeat=True,
    ),
    _field(
        "kubernetes.security",
        "--security",
        "Security profile of the pods: restricted, or rdma (root with IPC_LOCK, which needs a privileged namespace).",
        "restricted, rdma",
        "restricted",
        "PROFILE",
    ),
    _field(
        "kubernetes.network_policy",
        "--network-policy",
        "NetworkPolicy of the job's pods: isolate (allow ingress on eth0 only from pods of the job; this blocks "
        "metrics scrapers and other services, but not kubectl logs, exec and port-forward) or none (create no policy).",
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
