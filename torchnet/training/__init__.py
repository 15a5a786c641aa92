"""The API for training scripts: `torchnet.init()`, `torchnet.traffic()` and `torchnet.tune()`.

Only functions that need torch import it, so that `torchnet.traffic()` also works in programs without torch.
"""

from torchnet.training.ddp import tune
from torchnet.training.group import Context, init
from torchnet.training.traffic_meter import Bytes, Peer, Traffic, traffic

__all__ = ["Bytes", "Context", "Peer", "Traffic", "init", "traffic", "tune"]
