"""Certificates and kubeconfigs of one run: they are new each time, and go with the run folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cluster.places import API_ADDRESS, CP_ADDRESS, KUBECONFIG, NODES, RUN, node_address
from tests.cluster.shell import run

PKI = RUN / "pki"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
DAYS = "7"

SERVICE = "kubernetes.default.svc"
API_NAMES = (
    f"DNS:kubernetes,DNS:kubernetes.default,DNS:{SERVICE},IP:{API_ADDRESS},IP:{CP_ADDRESS},IP:127.0.0.1"
)
# Name -> (subject, alternative names). Organisations are Kubernetes' own groups: system:masters may do everything.
CERTIFICATES = {
    "apiserver": ("/CN=kube-apiserver", API_NAMES),
    "kubelet-client": ("/O=system:masters/CN=kube-apiserver-kubelet-client", ""),
    "admin": ("/O=system:masters/CN=admin", ""),
    "controller-manager": ("/CN=system:kube-controller-manager", ""),
    "scheduler": ("/CN=system:kube-scheduler", ""),
    **{
        node: (f"/O=system:nodes/CN=system:node:{node}", f"DNS:{node},IP:{node_address(node)}")
        for node in NODES
    },
}


def make() -> None:
    """All keys, certificates and kubeconfigs."""
    PKI.mkdir(mode=0o700)
    run(
        *("openssl", "req", "-x509", *CURVE, "-days", DAYS, "-subj", "/CN=torchnet-tests"),
        *("-keyout", PKI / "ca.key", "-out", PKI / "ca.crt"),
    )
    # Signs the service accounts' tokens.
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", PKI / "sa.key")
    run("openssl", "ec", "-in", PKI / "sa.key", "-pubout", "-out", PKI / "sa.pub")
    for name, (subject, alternatives) in CERTIFICATES.items():
        certificate(name, subject, alternatives)
    for name in ("controller-manager", "scheduler", *NODES):
        kubeconfig(name, RUN / f"{name}.kubeconfig")
    kubeconfig("admin", KUBECONFIG)


def certificate(name: str, subject: str, alternatives: str = "") -> None:
    """``name``.key and ``name``.crt, signed by the cluster's own authority, for clients and servers alike."""
    at, request, extra = PKI / name, PKI / f"{name}.csr", PKI / f"{name}.ext"
    lines = ["extendedKeyUsage=clientAuth,serverAuth"]
    extra.write_text("\n".join([*lines, f"subjectAltName={alternatives}"] if alternatives else lines) + "\n")
    run("openssl", "req", "-new", *CURVE, "-subj", subject, "-keyout", f"{at}.key", "-out", request)
    run(
        *("openssl", "x509", "-req", "-in", request, "-days", DAYS, "-extfile", extra, "-out", f"{at}.crt"),
        *("-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key", "-CAcreateserial"),
    )


def kubeconfig(name: str, path: Path) -> None:
    """A kubeconfig for the holder of the certificate ``name``."""

    def content(file: str) -> str:
        return base64.b64encode((PKI / file).read_bytes()).decode()

    cluster = {"server": f"https://{CP_ADDRESS}", "certificate-authority-data": content("ca.crt")}
    user = {"client-certificate-data": content(f"{name}.crt"), "client-key-data": content(f"{name}.key")}
    path.touch(mode=0o600)
    # JSON is YAML, too.
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "torchnet-tests", "cluster": cluster}],
                "users": [{"name": name, "user": user}],
                "contexts": [
                    {"name": "torchnet-tests", "context": {"cluster": "torchnet-tests", "user": name}}
                ],
                "current-context": "torchnet-tests",
            },
            indent=1,
        )
    )
