"""Tokens that expire in mid-run, minted with the cluster's own key; and a webhook that fails closed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.pki import PKI, SERVICE
from tests.cluster.places import CP_ADDRESS
from tests.cluster.shell import ClusterFailure
from tests.jobs import SLOW, until

# Longer than a token is good for, and what the API server remembers of one (10 s).
STAYS = """\
    import os, time
    for number in range(12):
        print("tick", number, flush=True)
        time.sleep(3)
"""
# An exec plugin as clouds have them, but for one thing: it does not say when its token expires. The API server accepts
# tokens for a minute after that (go-jose's leeway), so these expire in the past.
PLUGIN = """\
#!{python}
import base64, json, subprocess, time

GOOD_SECONDS, LEEWAY = 12, 60
now = int(time.time())
with open("{folder}/minted", "a") as file:
    file.write(str(now) + "\\n")

def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

claims = {{
    "iss": "https://{service}",
    "aud": ["https://{service}"],
    "sub": "system:serviceaccount:{namespace}:someone",
    "iat": now - 2 * LEEWAY,
    "nbf": now - 2 * LEEWAY,
    "exp": now - LEEWAY + GOOD_SECONDS,
    "kubernetes.io": {{
        "namespace": "{namespace}",
        "serviceaccount": {{"name": "someone", "uid": "{uid}"}},
    }},
}}
signed = encoded(json.dumps({{"alg": "ES256"}}).encode()) + "." + encoded(json.dumps(claims).encode())
der = subprocess.run(
    ["openssl", "dgst", "-sha256", "-sign", "{key}"], input=signed.encode(), capture_output=True, check=True
).stdout
# SEQUENCE of two INTEGERs, as JWTs want them: 32 bytes each.
first = der[4 : 4 + der[3]]
second = der[6 + der[3] :]
signature = b"".join(part.lstrip(b"\\0").rjust(32, b"\\0") for part in (first, second))
token = signed + "." + encoded(signature)
kind = {{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}}
print(json.dumps(kind | {{"status": {{"token": token}}}}))
"""


def minting(launcher: Launcher) -> Path:
    """A kubeconfig whose exec plugin mints tokens of a service account that may do everything in the namespace."""
    namespace, kubectl = launcher.namespace, launcher.cluster.kubectl
    kubectl("create", "serviceaccount", "someone", "-n", namespace)
    account = f"--serviceaccount={namespace}:someone"
    kubectl("create", "rolebinding", "someone", "--clusterrole=admin", account, "-n", namespace)
    uid = kubectl("get", "serviceaccount", "someone", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    plugin = launcher.folder / "plugin"
    plugin.write_text(
        PLUGIN.format(
            python=sys.executable,
            folder=launcher.folder,
            service=SERVICE,
            namespace=namespace,
            uid=uid,
            key=PKI / "sa.key",
        )
    )
    plugin.chmod(0o755)
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    path = launcher.folder / "minting.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@concurrent
def test_a_token_that_expires_in_mid_run_is_minted_again(launcher: Launcher) -> None:
    config = minting(launcher)
    ran = launcher.run(*launcher.words("--kubeconfig", str(config), nnodes=2), launcher.script(STAYS))
    assert ran.code == 0, ran.err
    assert [ran.out.count(f"tick {number}\n") for number in range(12)] == [2] * 12
    assert "not authenticated" not in ran.err
    minted = [int(line) for line in (launcher.folder / "minted").read_text().split()]
    assert len(minted) >= 2, "the first one was good to the end"
    assert len(minted) <= 2 + ran.seconds / 10, "not once for each request"
    assert launcher.left() == []


WEBHOOK = "fails.torchnet-tests.example.org"


@concurrent
def test_a_webhook_that_fails_closed_is_named_at_once(launcher: Launcher) -> None:
    """Of this namespace alone; nobody listens where it is called."""
    name = f"fails-{launcher.namespace}"
    hook = {
        "name": WEBHOOK,
        "clientConfig": {"url": f"https://{CP_ADDRESS}:9/check"},
        "rules": [
            {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": launcher.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }
    kubectl = launcher.cluster.kubectl

    def called() -> bool:
        try:
            kubectl("create", "job", "x", "--image=x", "-n", launcher.namespace, "--dry-run=server")
        except ClusterFailure as failure:
            return WEBHOOK in str(failure)
        return False

    kubectl("create", "-f", "-", input=json.dumps(body))
    try:
        until(called, "the API server to have read the configuration", 30, SLOW)
        ran = launcher.run(*launcher.words(nnodes=2), launcher.script(STAYS))
    finally:
        kubectl("delete", "validatingwebhookconfiguration", name)
    assert ran.code == 3, ran.err
    assert f'the admission webhook "{WEBHOOK}" failed' in ran.err
    assert "kubectl get validatingwebhookconfigurations" in ran.err
    assert ran.seconds < 20, "no 30 s of retries"
    assert launcher.left() == []
