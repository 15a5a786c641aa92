"""The cluster as runtime: objects made by `torchnet.render`, an agent in each pod, the same lines and receipt as here.

    configuration ── door (every call) ── refused (answers as errors) ── resources (paths and labels)
    create, remove ── what happens to objects      hurry ── what happens to workers that are to end at once
    pods ── gang (states, pure) ── watch      leaving (who is lost)      message ── end (code and receipt, pure)
    lines (a log's lines, pure) ── logs ── following ── heard      waiting (reasons, pure) ── look
    launch: starting (check, create) ── session (one run, as its launcher sees it) ── launching ── clearing, closing
    commands: survey ── runs (status)      reading (logs)      verify ── installed, verify_pods, _live, _judge
    signals ── interruptible (slow calls that signals are heard during)

The one place that imports the official client, and only when a door is opened.
"""
