"""Settings that apply to Kubernetes only; part of the table in `torchnet.config.settings`."""

from __future__ import annotations

from functools import partial

from torchnet.config.setting import Field

_field = partial(Field, only="kubernetes")
_NAME = "an object's name: a-z, 0-9, - and ., 253 characters at most"
_SPAN = "a quantity, or REQUEST:LIMIT, as in {}"
_PAIRS = "KEY=VALUE, both of at most 63 letters, digits, -, _ and ., the key with a DOMAIN/ if need be"

KUBERNETES_FIELDS = (
    _field(
        "kubernetes.namespace",
        "--namespace",
        "Namespace.",
        "a DNS label: at most 63 of a-z, 0-9 and -",
        "the context's",
        "NAME",
        short="-n",
    ),
    _field(
        "kubernetes.context",
        "--context",
        "Context of the kubeconfig.",
        "a context's name: kubectl config get-contexts",
        "the current one",
        "NAME",
    ),
    _field(
        "kubernetes.kubeconfig",
        "--kubeconfig",
        "Kubeconfig.",
        "the path of a file",
        "KUBECONFIG, ~/.kube/config, in-cluster",
        "FILE",
        is_path=True,
    ),
    _field(
        "kubernetes.image",
        "--image",
        "Image with Python and PyTorch; any stock one.",
        "REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…, TAG not latest",
        metavar="IMAGE",
    ),
    _field(
        "kubernetes.workload",
        "--as",
        "Kind of workload: job, jobset (restarts the whole gang in the cluster), pods.",
        "job, jobset, pods",
        "job; pods with --static-ips",
        "KIND",
    ),
    _field("kubernetes.gpus", "--gpus", "GPUs of each worker.", "a whole number from 0 to 64", "0", "N"),
    _field(
        "kubernetes.gpu_resource",
        "--gpu-resource",
        "Resource that the GPUs are asked for as.",
        "DOMAIN/NAME, such as nvidia.com/gpu or amd.com/gpu",
        "nvidia.com/gpu",
        "NAME",
    ),
    _field(
        "kubernetes.cpus",
        "--cpus",
        "CPUs of each worker.",
        _SPAN.format("4, 500m, 500m:2"),
        "1 per process, 4 per GPU",
        "N[:LIMIT]",
    ),
    _field(
        "kubernetes.memory",
        "--memory",
        "Memory of each worker.",
        _SPAN.format("16Gi, 1Gi:4Gi"),
        "2Gi per process, 16Gi per GPU",
        "SIZE[:LIMIT]",
    ),
    _field(
        "kubernetes.shm_size",
        "--shm-size",
        "Size of /dev/shm.",
        "a quantity, such as 8Gi",
        "up to the memory's limit",
        "SIZE",
    ),
    _field(
        "kubernetes.volumes",
        "--volume",
        "Volume: pvc:CLAIM:/PATH[:ro], configmap:NAME:/PATH, secret:NAME:/PATH, emptydir[:SIZE]:/PATH, "
        "hostpath:/ON/NODE:/PATH[:ro]; may repeat.",
        "[NAME=]pvc:CLAIM:/PATH[:ro], configmap:NAME:/PATH, secret:NAME:/PATH, emptydir[:SIZE]:/PATH, "
        "hostpath:/ON/NODE:/PATH[:ro]",
        metavar="VOLUME",
        repeat=True,
    ),
    _field(
        "kubernetes.secrets",
        "--secret",
        "Secret whose keys become variables, or files below /PATH; may repeat.",
        "NAME or NAME:/PATH",
        metavar="NAME[:/PATH]",
        repeat=True,
    ),
    _field(
        "kubernetes.node_selector",
        "--node-selector",
        "Label of the nodes; may repeat.",
        _PAIRS,
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.tolerations",
        "--toleration",
        "Taint that is tolerated; may repeat.",
        "KEY[=VALUE][:EFFECT], EFFECT one of NoSchedule, PreferNoSchedule, NoExecute",
        metavar="K[=V][:EFFECT]",
        repeat=True,
    ),
    _field("kubernetes.queue", "--queue", "Kueue's local queue.", _NAME, metavar="NAME"),
    _field(
        "kubernetes.priority_class", "--priority-class", "PriorityClass of the pods.", _NAME, metavar="NAME"
    ),
    _field(
        "kubernetes.spread",
        "--spread",
        "Workers evenly over the nodes: none, soft (where possible), hard (else they wait).",
        "none, soft, hard",
        "soft",
        "HOW",
    ),
    _field(
        "kubernetes.image_pull_secrets",
        "--image-pull-secret",
        "Secret to pull the image with; may repeat.",
        _NAME,
        metavar="NAME",
        repeat=True,
    ),
    _field(
        "kubernetes.pod_template",
        "--pod-template",
        "PodTemplate (YAML) that is merged into the pods as kubectl patch does.",
        "the path of a YAML file with metadata and spec",
        metavar="FILE",
        is_path=True,
    ),
    _field(
        "kubernetes.labels",
        "--label",
        "Label for every object; may repeat.",
        _PAIRS,
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.annotations",
        "--annotation",
        "Annotation for every object; may repeat.",
        "KEY=VALUE, the key of at most 63 letters, digits, -, _ and . with a DOMAIN/ if need be",
        metavar="K=V",
        repeat=True,
    ),
    _field(
        "kubernetes.code",
        "--code",
        "Where the script comes from: configmap (its folder travels), image, pvc:NAME/PATH.",
        "configmap, image, pvc:NAME/PATH",
        "configmap",
        "WHERE",
    ),
    _field(
        "kubernetes.token_secret",
        "--token-secret",
        "Secret with the job's secret under the key token; none is made then.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.service_account",
        "--service-account",
        "Account that may get and list pods; neither account nor role is made then.",
        _NAME,
        metavar="NAME",
    ),
    _field(
        "kubernetes.static_ips",
        "--static-ips",
        "Workers' addresses on a rail: FIRST-LAST/LENGTH, or a list; may repeat, one for each rail, whose "
        "attachment has --ipam static. No pod asks the API server then.",
        "FIRST-LAST/LENGTH or ADDRESS/LENGTH,…, as in fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64",
        metavar="RANGE",
        repeat=True,
    ),
    _field(
        "kubernetes.security",
        "--security",
        "Pod Security: restricted, or rdma (root with IPC_LOCK: the namespace has to be privileged).",
        "restricted, rdma",
        "restricted",
        "PROFILE",
    ),
    _field(
        "kubernetes.network_policy",
        "--network-policy",
        "NetworkPolicy of the job's pods: isolate (allows ingress on eth0 from the job's own pods alone: no metrics "
        "scraper and no other service can connect; kubectl logs, exec and port-forward are not affected), none "
        "(creates no policy).",
        "isolate, none",
        "isolate",
        "HOW",
    ),
    _field(
        "kubernetes.multi_network_policy",
        "--multi-network-policy",
        "Isolate the job's pods on the rails, too; needs the controller of MultiNetworkPolicy.",
        "true, false",
        switch=True,
    ),
    _field(
        "kubernetes.detach", "--detach", "Return when all workers have started.", "true, false", switch=True
    ),
    _field(
        "kubernetes.keep", "--keep", "Leave the objects when the job has ended.", "true, false", switch=True
    ),
)
