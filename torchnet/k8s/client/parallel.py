"""Run a slow call for many arguments in a few threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
_THREADS = 16


def parallel(
    call: Callable[[Argument], Answer],
    arguments: Iterable[Argument],
    threads: int = _THREADS,
    *,
    first: Callable[[BaseException], bool] = lambda _: False,
) -> list[Answer]:
    """Return what ``call`` returns for each argument, in their order.

    The threads are daemons, unlike those of concurrent.futures, so that a command that was interrupted twice does not
    wait for their requests.

    Args:
        first: Of several errors, the first one that this function approves of is raised.

    Raises:
        BaseException: What the first call that failed has raised. No further calls are begun then, and those that
            were are waited for.
    """
    waiting: queue.SimpleQueue[tuple[int, Argument]] = queue.SimpleQueue()
    count = 0
    for argument in arguments:
        waiting.put((count, argument))
        count += 1
    answers: dict[int, Answer] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                number, argument = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers[number] = call(argument)
            except BaseException as error:  # raised again in the caller's thread
                errors.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, count))]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    if errors:
        raise next(filter(first, errors), errors[0])
    return [answers[number] for number in range(count)]
