"""The local runtime: two networks on this machine and an agent in each node, with the same code as in a pod."""
