"""One thread pool for the whole process, for the parallel tasks of a call.

Concurrent calls then share as many threads as there are processors.  A call never waits for the
tasks of another call: if the pool is busy, it runs its tasks in the calling thread.
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
    """Return the pool; a task must not wait for a task that has not started."""
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="facecore")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=pool.cache_clear)


def submit(task: Callable[[], T]) -> Future[T] | None:
    """Submit a task to the pool; return None if no thread can be started.

    This happens in ``atexit`` handlers, after the end of the main thread, and at the system's
    limit of threads.
    """
    helpers = pool()
    try:
        return helpers.submit(task)
    except RuntimeError:
        return None
    except BaseException:
        # Ctrl-C while a thread starts: the pool does not know the thread, so the process would
        # wait for it forever at its end.  Shutting the pool down ends this thread too.
        pool.cache_clear()
        helpers.shutdown(wait=False)
        raise


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results of tasks, in order; the caller runs tasks that no helper has started.

    Raises the error of the first task that fails; later tasks may have run or not.
    """
    helpers = [submit(task) for task in tasks[1:]]
    helper: Future[T] | None = None
    try:
        results = [tasks[0]()]
        for task, helper in zip(tasks[1:], helpers, strict=True):
            results.append(task() if helper is None or helper.cancel() else helper.result())
        return results
    finally:
        for helper in helpers:
            if helper is not None:
                helper.cancel()
        # A future holds its error, whose traceback holds this frame.  Breaking this cycle frees
        # pictures at once.
        helpers.clear()
        helper = None
