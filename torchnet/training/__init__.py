"""What training scripts use: `torchnet.init()`, `torchnet.traffic()` and `torchnet.tune()`.

Standard library and `torchnet.linux` alone; torch is imported inside the functions that need it, so that
`torchnet.traffic()` works in programs without torch, too.
"""

from torchnet.training.ddp import tune
from torchnet.training.group import Context, init
from torchnet.training.traffic_meter import Bytes, Peer, Traffic, traffic

__all__ = ["Bytes", "Context", "Peer", "Traffic", "init", "traffic", "tune"]
