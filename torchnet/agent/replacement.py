"""Pods that end before the start so that a Job replaces them: their exit code, and when they ask for it (pure).

The policies of a Job and a JobSet ignore a failure with this exit code (torchnet.k8s.objects.workloads), which another
end of the container must therefore not have.
"""

from __future__ import annotations

from torchnet.agent.spec import AgentSpec
from torchnet.constants import REPLACE_CODE
from torchnet.network.interface_selection import TakenError

_MAX_REPLACEMENTS = 3  # pods per worker: a Job waits 10, 20 and 40 s before it creates them
_FAILED_CODE = 1


def may_help(spec: AgentSpec, error: Exception) -> bool:
    """Return whether another pod may get a free address instead of this one's, which another machine has."""
    taken = isinstance(error, TakenError)
    return taken and spec.replaced is not None and spec.replaced < _MAX_REPLACEMENTS


def exit_code(spec: AgentSpec, code: int) -> int:
    """Return the exit code of a pod that is not to be replaced; ``code`` is the job's, which may be any.

    A script that ends with the code of a replacement would otherwise start again without end.
    """
    return _FAILED_CODE if spec.replaced is not None and code == REPLACE_CODE else code
