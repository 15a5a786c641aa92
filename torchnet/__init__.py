"""Run PyTorch scripts on many workers over the backend network, and prove which network carried the bytes.

Each name is loaded on first use; ``import torchnet`` itself loads neither torch nor pyroute2.

For programs, notebooks and tests:

* :func:`launch` runs a script as the command ``torchnet launch`` does, and returns the receipt;
* :mod:`torchnet.errors` has the exceptions that it raises.

For training scripts:

* :func:`init` initialises ``torch.distributed`` under torchnet, under plain torchrun and in a single process;
* :func:`traffic` counts the bytes sent and received, by interface and by peer;
* :func:`tune` wraps a model in DistributedDataParallel according to the job's settings.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from torchnet.api import launch
    from torchnet.training import Context, Traffic, init, traffic, tune

__all__ = ["Context", "Traffic", "__version__", "init", "launch", "traffic", "tune"]

__version__ = "0.1.0"


def _counters_now() -> bytes:
    """Return the kernel's interface counters as unparsed text (/proc/net/dev, proc(5)); b"" if unreadable.

    Reading takes 0.1 ms and imports no module.
    """
    try:
        with open("/proc/self/net/dev", "rb") as file:
            return file.read()
    except OSError:
        return b""


# The baseline that `traffic()` counts from. `traffic()` parses it, so that the import does not have to.
_counters_at_import = _counters_now()


def __getattr__(name: str) -> object:
    if name == "launch":
        from torchnet.api import launch

        return launch
    if name == "errors":
        import importlib

        return importlib.import_module("torchnet.errors")
    if name in __all__:
        from torchnet import training

        return getattr(training, name)
    raise AttributeError(f"module 'torchnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
