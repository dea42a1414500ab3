"""Threads for what one call can do at once: one pool for the whole process.

Many calls at once then do not make more threads than there are processors, and none waits for
another's: whoever finds the pool busy does the work itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

from facecore._utils.cpus import usable_cpus

__all__ = ["at_once", "pool", "release_turn", "run_interleaved", "submit"]

T = TypeVar("T")


@cache
def pool() -> ThreadPoolExecutor:
    """The helpers of the calling threads; what they do must wait for no helper yet to begin."""
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="facecore")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=pool.cache_clear)


def submit(task: Callable[[], T]) -> Future[T] | None:
    """Give a task to a helper; None where there is none to be had.

    So it is after the main thread's end, in ``atexit`` handlers, and where the system grants no
    more threads.
    """
    try:
        return pool().submit(task)
    except RuntimeError:
        return None


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Results of tasks, in their order; the caller does those that no helper has begun.

    Raises what the first task that fails raises; later ones may have run or not.
    """
    helpers = [submit(task) for task in tasks[1:]]
    try:
        results = [tasks[0]()]
        for task, helper in zip(tasks[1:], helpers, strict=True):
            results.append(task() if helper is None or helper.cancel() else helper.result())
        return results
    finally:
        for helper in helpers:
            if helper is not None:
                helper.cancel()


_here = threading.local()
_PATIENCE = 1.0  # seconds for which a turn is waited for, so that none that is lost stops anybody


class release_turn:  # noqa: N801 - reads as what it is where it is used
    """Within it, the other tasks of `run_interleaved` have their turn; elsewhere it does nothing.

    No generator: one that an interrupt leaves behind would take the turn back when it is collected.
    """

    __slots__ = ("_turn",)

    def __enter__(self) -> None:
        turn: threading.RLock | None = getattr(_here, "turn", None)
        self._turn = turn if turn is not None and _give_up(turn) else None

    def __exit__(self, *_: object) -> None:
        if self._turn is not None and not self._turn.acquire(timeout=_PATIENCE):
            _here.turn = None  # on without turns: they save time and guard nothing


def run_interleaved(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """As `at_once`, for tasks that compute in C `release_turn`, and run Python between.

    Python's own lock is handed over at every small call into C, and to wake a thread costs more
    than many of these take: a comparison's threads fell asleep 26 times, and do so 12 times with a
    lock of their own that only the long calls give up.
    """
    turn = threading.RLock()
    return at_once([partial(_in_turn, turn, task) for task in tasks])


def _in_turn(turn: threading.RLock, task: Callable[[], T]) -> T:
    outer = getattr(_here, "turn", None)
    try:
        if turn.acquire(timeout=_PATIENCE):
            _here.turn = turn
        return task()
    finally:
        _here.turn = outer
        _give_up(turn)


def _give_up(turn: threading.RLock) -> bool:
    """Whether it was held: an interrupt may come between any two steps, but the lock knows."""
    try:
        turn.release()
    except RuntimeError:
        return False
    return True
