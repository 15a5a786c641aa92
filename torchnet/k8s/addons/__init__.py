"""Manifests for the cluster: Multus, Whereabouts, network attachments, RBAC and the example pods."""
