"""The readers–writer lock; tests wait for events and never sleep."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from interrupts import interrupted

from facecore._utils import rwlock
from facecore._utils.rwlock import ReadersWriterLock

LONG = 30.0  # seconds; only a failing test waits this long


def waiting(lock, readers=0, writers=0):
    """Return when so many threads wait for the lock; only its private counters show it."""
    deadline = threading.Event()
    for _ in range(3000):
        uses = [use.writes for use in list(lock._uses.values()) if not use.inside]
        if (uses.count(False), uses.count(True)) == (readers, writers):
            return
        deadline.wait(0.01)
    pytest.fail("nobody waits")


def start(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def finish(*threads):
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_readers_are_inside_together():
    lock, both = ReadersWriterLock(), threading.Barrier(2)

    def read():
        with lock.reading():
            both.wait(LONG)  # passes only if both readers are inside

    finish(start(read), start(read))


def test_writer_is_alone():
    lock, order = ReadersWriterLock(), []

    def write():
        with lock.writing():
            order.append("writer")

    with lock.reading():
        writer = start(write)
        waiting(lock, writers=1)
        order.append("reader")
    finish(writer)
    assert order == ["reader", "writer"]


def test_writer_goes_before_readers_that_come_later():
    lock, order = ReadersWriterLock(), []

    def write():
        with lock.writing():
            order.append("writer")

    def read():
        with lock.reading():
            order.append("reader")

    with lock.reading():
        writer = start(write)
        waiting(lock, writers=1)
        reader = start(read)
        waiting(lock, readers=1, writers=1)
        assert order == []
    finish(writer, reader)
    assert order == ["writer", "reader"]


def test_readers_that_waited_go_before_the_next_writer():
    lock, order = ReadersWriterLock(), []

    def write():
        with lock.writing():
            order.append("writer")

    def read():
        with lock.reading():
            order.append("reader")

    with lock.writing():
        threads = [start(read), start(read)]
        waiting(lock, readers=2)
        threads.append(start(write))
        waiting(lock, readers=2, writers=1)
    finish(*threads)
    assert order == ["reader", "reader", "writer"]


def test_an_error_inside_releases_it():
    lock = ReadersWriterLock()
    for hold in (lock.reading, lock.writing):
        with pytest.raises(KeyError), hold():
            raise KeyError
    with lock.writing():
        pass


@pytest.mark.parametrize("hold", ["reading", "writing"])
@pytest.mark.parametrize("occupied", [False, True])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(hold, occupied):
    lock = ReadersWriterLock()

    def enter():
        with getattr(lock, hold)():
            pass

    def wait_and_enter():
        inside, leave = threading.Event(), threading.Event()

        def occupy():
            with lock.writing():
                inside.set()
                leave.wait(LONG)

        other = start(occupy)
        inside.wait(LONG)
        leaver = threading.Timer(0.01, leave.set)
        leaver.start()
        try:
            enter()
        finally:
            leave.set()
            finish(other)

    def use():
        with lock.writing():
            pass
        with lock.reading():
            pass

    work, modules = (wait_and_enter, [rwlock]) if occupied else (enter, [rwlock, threading])
    for _ in interrupted(work, *modules):
        finish(start(use))
        assert not lock._uses


def test_counts_are_exact_under_load():
    lock = ReadersWriterLock()
    state = [0, 0]
    torn = []

    def work(seed):
        for i in range(300):
            if (i + seed) % 5:
                with lock.reading():
                    if state[0] != state[1]:
                        torn.append(tuple(state))
            else:
                with lock.writing():
                    state[0] += 1
                    state[1] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert not torn
    assert state == [480, 480]
