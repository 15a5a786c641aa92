"""States with an explicit table of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from torchnet.errors import TorchnetError

S = TypeVar("S", bound=Enum)


class StateMachine(Generic[S]):
    """The current state of one component.

    Args:
        name: of the component, for the error.
        transitions: the states that each state may be followed by; the first key is the initial state.
    """

    def __init__(self, name: str, transitions: Mapping[S, frozenset[S]]) -> None:
        self._name = name
        self._transitions = transitions
        self.current = next(iter(transitions))

    def allows(self, state: S) -> bool:
        """Return whether ``state`` may follow the current state."""
        return state in self._transitions[self.current]

    def enter(self, state: S) -> None:
        """Change the state.

        Raises:
            TorchnetError: the table has no such transition, which is a defect of the component.
        """
        if not self.allows(state):
            raise TorchnetError(
                f"{self._name}: no transition from state {self.current.value} to {state.value}",
                fix="this is a defect of torchnet: report it with the job's output",
            )
        self.current = state
