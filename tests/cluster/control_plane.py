"""etcd, API server, controller manager, scheduler and CoreDNS: processes in the namespace `cp`."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cluster import coredns, recipes
from tests.cluster.daemons import log, start, stop
from tests.cluster.pki import PKI, SERVICE
from tests.cluster.places import (
    CONTROL_PLANE,
    CP_ADDRESS,
    KUBECONFIG,
    RUN,
    SERVICES,
    namespace_file,
)
from tests.cluster.shell import ClusterFailure, run, wait_until

PREFIX = ("nsenter", f"--net={namespace_file(CONTROL_PLANE)}")
ETCD = "http://127.0.0.1:2379"
NAMES = ("etcd", "apiserver", "controller-manager", "scheduler", "coredns")
_COMMON = ("--leader-elect=false", "--authentication-skip-lookup")


def kubectl_command() -> tuple[str, ...]:
    """kubectl as the administrator, in the namespace from which the API server is reached."""
    program = recipes.kubernetes.folder / "kubectl"
    return (*PREFIX, "env", f"KUBECONFIG={KUBECONFIG}", str(program))


def kubectl(*arguments: str | Path, input: str | None = None, timeout: float = 120) -> str:  # noqa: A002
    """kubectl's standard output; ClusterFailure with its standard error."""
    return run(*kubectl_command(), *arguments, input=input, timeout=timeout)


def up() -> None:
    """Start all five; the API server answers afterwards."""
    start_etcd()
    start_apiserver()
    start_controller_manager()
    start_scheduler()
    start_dns()


def start_etcd() -> None:
    peers = "http://127.0.0.1:2380"
    start(
        *("etcd", *PREFIX, "etcd", "--data-dir", RUN / "etcd", "--unsafe-no-fsync", "--logger=zap"),
        *("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", peers),
        *("--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
    )


def start_controller_manager(*more: str) -> None:
    """Start the controllers, with ``more`` flags."""
    root = PKI / "ca.crt"
    # A silent node is NotReady after 8 s: some four of its leases' renewals.
    start(
        *("controller-manager", *PREFIX, recipes.kubernetes.folder / "kube-controller-manager", *_COMMON),
        f"--kubeconfig={RUN / 'controller-manager.kubeconfig'}",
        *("--use-service-account-credentials", f"--service-account-private-key-file={PKI / 'sa.key'}"),
        *(f"--root-ca-file={root}", f"--cluster-signing-cert-file={root}"),
        f"--cluster-signing-key-file={PKI / 'ca.key'}",
        *("--node-monitor-period=1s", "--node-monitor-grace-period=8s", *more),
    )


def start_scheduler() -> None:
    start(
        *("scheduler", *PREFIX, recipes.kubernetes.folder / "kube-scheduler", *_COMMON),
        f"--kubeconfig={RUN / 'scheduler.kubeconfig'}",
    )


def restart_controller_manager(*more: str) -> None:
    stop("controller-manager", signal.SIGKILL)
    start_controller_manager(*more)


def start_dns() -> None:
    """Start CoreDNS; it answers once it has read all services, a moment later."""
    file = RUN / "Corefile"
    file.write_text(coredns.COREFILE)
    start("coredns", *PREFIX, recipes.coredns.folder / "coredns", "-conf", file)


def stop_dns() -> None:
    """End CoreDNS: questions get no response but that the port is closed."""
    stop("coredns", signal.SIGKILL)


def start_apiserver(*more: str) -> None:
    """Start the API server, with ``more`` flags, and wait until it is ready."""
    # Port 443, as the service's: no proxy stands between. --enable-aggregator-routing: webhooks are called at
    # their pods' addresses. Pods of a lost node are evicted after 10 s, not 300.
    start(
        *("apiserver", *PREFIX, recipes.kubernetes.folder / "kube-apiserver"),
        *(f"--etcd-servers={ETCD}", "--secure-port=443", f"--advertise-address={CP_ADDRESS}"),
        *(f"--service-cluster-ip-range={SERVICES}", "--enable-aggregator-routing", "--allow-privileged"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
        # Beta, and off by default: what assigns ids to pods, as OpenShift does.
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        *("--default-not-ready-toleration-seconds=10", "--default-unreachable-toleration-seconds=10"),
        *(f"--client-ca-file={PKI / 'ca.crt'}", f"--tls-cert-file={PKI / 'apiserver.crt'}"),
        *(f"--tls-private-key-file={PKI / 'apiserver.key'}", "--kubelet-preferred-address-types=InternalIP"),
        f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
        f"--kubelet-client-certificate={PKI / 'kubelet-client.crt'}",
        f"--kubelet-client-key={PKI / 'kubelet-client.key'}",
        f"--service-account-issuer=https://{SERVICE}",
        f"--service-account-key-file={PKI / 'sa.pub'}",
        f"--service-account-signing-key-file={PKI / 'sa.key'}",
        *more,
    )
    try:
        wait_until("API server", 60, lambda: kubectl("get", "--raw", "/readyz") == "ok")
    except ClusterFailure as failure:
        raise ClusterFailure(f"{failure}\n{log('apiserver')[-3000:]}") from None


def restart_apiserver(*more: str) -> None:
    """Kill it, so that open connections end without a word, and start it anew, with ``more`` flags."""
    stop("apiserver", signal.SIGKILL)
    start_apiserver(*more)


def down() -> None:
    """End all five, at once: nothing of theirs is kept."""
    for name in NAMES[::-1]:
        stop(name, signal.SIGKILL)
