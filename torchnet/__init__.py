"""torchnet: PyTorch scripts on many workers, their collectives over the backend network, and the proof that
they were.

For training scripts (each is loaded when it is first used; `import torchnet` itself loads neither torch nor
pyroute2):

* :func:`init` initialises ``torch.distributed`` under torchnet, under plain torchrun and in a single process;
* :func:`traffic` tells how many bytes went over which interface and to which peer;
* :func:`tune` wraps a model in DistributedDataParallel as the job's settings say.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from torchnet.training import Context, Traffic, init, traffic, tune

__all__ = ["Context", "Traffic", "__version__", "init", "traffic", "tune"]

__version__ = "0.1.0"


def _counters_now() -> bytes:
    """The interfaces' counters as the kernel prints them (proc(5), /proc/net/dev): 0.1 ms, no module needed."""
    try:
        with open("/proc/self/net/dev", "rb") as file:
            return file.read()
    except OSError:
        return b""


# What `traffic()` counts from; parsed only there.
_counters_at_import = _counters_now()


def __getattr__(name: str) -> object:
    if name in __all__:
        from torchnet import training

        return getattr(training, name)
    raise AttributeError(f"module 'torchnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
