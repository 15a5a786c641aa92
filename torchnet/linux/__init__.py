"""Kernel interfaces: netlink, sock_diag, namespaces, cgroups. Only what sets up networks imports pyroute2."""
