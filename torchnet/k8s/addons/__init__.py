"""The cluster's side: Multus, Whereabouts, network attachments, RBAC and the example pods."""
