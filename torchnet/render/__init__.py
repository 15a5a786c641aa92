"""What Kubernetes is told: `objects` turns a job into plain objects, the same bytes each time.

Nothing here calls anybody. `torchnet.render.code` and `torchnet.render.template` read the files that travel.
"""
