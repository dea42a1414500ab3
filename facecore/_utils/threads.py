"""Threads for what one call can do at once: one pool for the whole process.

Many calls at once then do not make more threads than there are processors, and none waits for
another's: whoever finds the pool busy does the work itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from facecore._utils.cpus import usable_cpus

__all__ = ["at_once", "pool", "submit"]

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
    helpers = pool()
    try:
        return helpers.submit(task)
    except RuntimeError:
        return None
    except BaseException:
        # Ctrl-C while a thread starts: the pool does not know it, so the process's end would wait
        # for it for ever.  The end of the pool reaches it all the same.
        pool.cache_clear()
        helpers.shutdown(wait=False)
        raise


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
