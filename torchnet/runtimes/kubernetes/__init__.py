"""The cluster as runtime: objects made by `torchnet.render`, an agent in each pod, the same lines and receipt as here.

    configuration ── door (every call) ── refused (answers as errors) ── resources (paths and labels)
    create, remove ── what happens to objects
    pods ── gang (states, pure) ── watch      message ── end (code and receipt, pure)
    lines (a log's lines, pure) ── logs ── following      waiting (reasons, pure) ── look
    session (one run, as its launcher sees it) ── launching ── launch, commands

The one place that imports the official client, and only when a door is opened.
"""
