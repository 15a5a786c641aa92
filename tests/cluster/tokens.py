"""Tokens of service accounts, signed with the cluster's own key, for whatever time a test wants."""

from __future__ import annotations

import base64
import json
import subprocess

from tests.cluster.cluster import Cluster
from tests.cluster.pki import PKI, SERVICE
from tests.cluster.places import CP_ADDRESS
from tests.cluster.shell import ClusterFailure

_HALF = 32  # bytes of each of the two numbers of a P-256 signature


def mint(cluster: Cluster, account: str, *, namespace: str, begun: float, seconds: float) -> str:
    """A token that is valid for so many seconds from ``begun`` (Unix time). The API server gives none below 600 s."""
    words = ("get", "serviceaccount", account, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    issuer, uid = f"https://{SERVICE}", cluster.kubectl(*words).strip()
    claims = {
        "iss": issuer,
        "aud": [issuer],
        "sub": f"system:serviceaccount:{namespace}:{account}",
        "iat": int(begun),
        "nbf": int(begun),
        "exp": int(begun + seconds),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
    }
    text = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
    sign = ("openssl", "dgst", "-sha256", "-sign", str(PKI / "sa.key"))
    der = subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout
    return f"{text}.{_encoded(_raw(der))}"


def is_accepted(cluster: Cluster, token: str) -> bool:
    """Whether the API server takes the holder for somebody."""
    server = (f"--server=https://{CP_ADDRESS}", f"--certificate-authority={PKI / 'ca.crt'}")
    words = ("--kubeconfig=/dev/null", *server, f"--token={token}", "auth", "whoami")
    try:
        cluster.kubectl(*words)
    except ClusterFailure as failure:
        if "Unauthorized" in str(failure) or "must be logged in" in str(failure):
            return False
        raise
    return True


def kubeconfig(token: str) -> str:
    """The text of a kubeconfig for the holder of a token."""
    at = {"server": f"https://{CP_ADDRESS}", "certificate-authority": str(PKI / "ca.crt")}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tenant",
        "clusters": [{"name": "tests", "cluster": at}],
        "users": [{"name": "tenant", "user": {"token": token}}],
        "contexts": [{"name": "tenant", "context": {"cluster": "tests", "user": "tenant"}}],
    }
    return json.dumps(body)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature side by side (RFC 7518, 3.4), from SEQUENCE { INTEGER, INTEGER }."""
    numbers, rest = [], der[2:]
    for _ in range(2):
        length = rest[1]
        numbers.append(int.from_bytes(rest[2 : 2 + length], "big").to_bytes(_HALF, "big"))
        rest = rest[2 + length :]
    return b"".join(numbers)
