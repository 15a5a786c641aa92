"""The kernel's interfaces: netlink, sock_diag, namespaces, control groups. The only package that imports pyroute2."""
