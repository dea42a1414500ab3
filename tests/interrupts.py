"""Interrupt a function as Ctrl-C would, at each moment in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any


def interrupted(work: Callable[[], object], *modules: ModuleType) -> Iterator[int]:
    """Call `work` again and again; yield after each call that was interrupted.

    CPython runs signal handlers at the start of a Python function and after a call of a C
    function.  The n-th call of `work` is interrupted at the n-th such moment in `modules`.
    """
    files = [module.__file__ for module in modules]
    moment = 0
    while True:
        moment += 1
        left = moment

        def profile(frame: Any, event: str, _: object) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename in files:
                left -= 1
                if not left:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(profile)
        try:
            work()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        if left > 0:
            assert moment > 1
            return
        yield moment
