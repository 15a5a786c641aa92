"""What the test cluster consists of, each version once, and under which names its images are known.

Multus's, Whereabouts's and the example pods' images carry the names that the project's own manifests pin, so that
those can be applied as they are; the images themselves are built here.
"""

from __future__ import annotations

from torchnet.k8s.addons.images import MULTUS, PYTORCH, WHEREABOUTS

KUBERNETES_VERSION = "v1.34.4"
JOBSET_VERSION = "v0.10.1"
COREDNS_VERSION = "v1.12.4"  # kubeadm installs v1.12.1 with this Kubernetes; this one requires its client-go
KUEUE_VERSION = "v0.17.0"
KWOK_VERSION = "v0.7.0"
# The manifests decide about these two.
MULTUS_VERSION = MULTUS.rpartition(":")[2]
WHEREABOUTS_VERSION = WHEREABOUTS.rpartition(":")[2]

KUBERNETES_MODULE = "k8s.io/kubernetes"
MULTUS_MODULE = "gopkg.in/k8snetworkplumbingwg/multus-cni.v4"
WHEREABOUTS_MODULE = "github.com/k8snetworkplumbingwg/whereabouts"
JOBSET_MODULE = "sigs.k8s.io/jobset"
COREDNS_MODULE = "github.com/coredns/coredns"
GO_MODULES = {
    KUBERNETES_MODULE: KUBERNETES_VERSION,
    MULTUS_MODULE: MULTUS_VERSION,
    WHEREABOUTS_MODULE: WHEREABOUTS_VERSION,
    JOBSET_MODULE: JOBSET_VERSION,
}

# Built by themselves: they require other versions of Kubernetes' modules.
KUEUE_MODULE = "sigs.k8s.io/kueue"
KWOK_MODULE = "sigs.k8s.io/kwok"

# What the modules' go.mod files ask for; whereabouts asks for the newest.
GO_VERSION = (1, 25, 5)

DEBIAN_RELEASE = "trixie"  # of the worker's image: the first with a PyTorch that torchnet supports
PAUSE_IMAGE = "localhost/torchnet/pause:1"
WORKER_IMAGE = "localhost/torchnet/pytorch:trixie"
JOBSET_IMAGE = f"us-central1-docker.pkg.dev/k8s-staging-images/jobset/jobset:{JOBSET_VERSION}"
KUEUE_IMAGE = f"us-central1-docker.pkg.dev/k8s-staging-images/kueue/kueue:{KUEUE_VERSION}"
# A stock image with PyTorch stands in for the official one, which comes from a registry.
WORKER_NAMES = (WORKER_IMAGE, PYTORCH)
MULTUS_IMAGE = MULTUS
WHEREABOUTS_IMAGE = WHEREABOUTS

# Program -> the Debian package that has it.
DEBIAN_PROGRAMS = {
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/bin/etcd": "etcd-server",
    "/usr/lib/cni/macvlan": "containernetworking-plugins",
    "/bin/busybox": "busybox-static",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/sbin/iptables": "iptables",
    "/usr/bin/openssl": "openssl",
    "/usr/bin/nsenter": "util-linux",
    "/bin/ip": "iproute2",
    "/usr/bin/jq": "jq",
}
