"""The cluster's side of the backend network as Kubernetes objects: pure functions of their options.

What the guide in manifests/ applies is rendered here, so that it comes with other images, cards and ranges, too.
Standard library alone; nothing is probed, and the same options give the same bytes.
"""
