"""All rules on what is installed in a namespace: ``torchnet network lint -n NAMESPACE``."""

from __future__ import annotations

from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.lint import Lint, lint
from torchnet.k8s.client.api_client import ApiClient


def lint_namespace(client: ApiClient, namespace: str) -> Lint:
    """Check the attachments of a namespace, also against those of other namespaces, and the requests of its pods.

    Raises:
        NetworkError: Multus is not installed.
        ApiRefusal: This user may not list the namespace's attachments.
        ClusterError: The cluster cannot be reached.
    """
    state = ClusterState(client)
    definitions = state.definitions(namespace)
    requests = state.requests(namespace)
    nodes = state.nodes()
    own = [one.path for one in definitions if one.namespace == namespace]
    return lint(
        definitions,
        requests,
        nodes=nodes,
        is_complete=state.is_complete,
        concerns=own,
        skipped=state.skipped,
    )
