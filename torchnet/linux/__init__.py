"""Kernel interfaces: netlink, sock_diag, namespaces, cgroups. The only package that imports pyroute2."""
