"""The local runtime: two networks on this machine and an agent in each node, running the same code as a pod."""
