"""The one door to the kernel's network: everything that torchnet asks of netlink goes through here.

pyroute2 supplies the messages (their fields, attributes and codecs); the sockets are plain ``AF_NETLINK`` sockets of
the standard library.  pyroute2's own sockets were tried and left: they bring an asyncio core and a thread, which
neither forks nor moves between network namespaces well, and importing them costs 0.12 s in every worker.
"""
