"""Do 8 threads that add, remove and search, and 2 searching processes, get serial answers?

    python -m benchmarks concurrency [--seconds 60] [--threads 8] [--readers 2] [--index hnsw]
        [--encrypted]

Logs every change with its result, and every search with the state of the store that it saw: the
last addition and the last removal.  Afterwards, replays all changes serially in order of their ids
and compares every answer with a brute-force search over exactly the faces of its state.  The
states must agree with the clock: a search that began after a change was acknowledged sees it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from templates import TemplateEngine, template

from facecore import Gallery, Match
from facecore.gallery.sqlite.backend import SqliteBackend

GROUPS = ("a", "b", "c")
LIMIT = 10


@dataclass
class Answer:
    """A search: start time, state of the store, and result."""

    began: int
    state: tuple[int, int]
    token: str
    groups: list[str] | None
    matches: list[Match]


@dataclass
class Log:
    """Log of one thread or process."""

    # (acknowledged at, face id, row id, group, token)
    added: list[tuple[int, str, int, str, str]] = field(default_factory=list)
    # (acknowledged at, row ids)
    removed: list[tuple[int, list[int]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


_answered_at = threading.local()


def record_states() -> None:
    """Make every search record the state of the store that it saw."""
    plain = SqliteBackend._current

    @contextlib.contextmanager
    def current(self: SqliteBackend, groups: Any = ()) -> Iterator[Any]:
        with plain(self, groups) as found:
            state = found[2]
            _answered_at.state = (state.face, state.removal)
            yield found

    SqliteBackend._current = current  # type: ignore[method-assign]


def ask(gallery: Gallery, token: str, groups: list[str] | None, log: Log) -> None:
    began = time.monotonic_ns()
    matches = gallery.search(template(token), groups, LIMIT)
    log.answers.append(Answer(began, _answered_at.state, token, groups, matches))


def worker(gallery: Gallery, number: int, deadline: float, log: Log) -> None:
    """Add, remove and search; each thread has separate users, so it knows what it removes."""
    rng = random.Random(number)
    mine: dict[str, list[int]] = {}
    tokens = [f"{number}-first"]
    try:
        while time.monotonic() < deadline:
            kind = rng.random()
            group, user = rng.choice(GROUPS), f"{number}-{rng.randrange(20)}"
            if kind < 0.35:
                size = rng.choice([1, 1, 2, 8])
                new = [f"{number}-{rng.getrandbits(40):010x}" for _ in range(size)]
                records = gallery.add_templates(
                    group,
                    np.stack([template(token) for token in new]),
                    [f"{group}/{user}"] * size,
                    contract=gallery.contract_id,
                )
                now = time.monotonic_ns()
                log.added += [
                    (now, r.face_id, r.id, group, t) for r, t in zip(records, new, strict=True)
                ]
                mine.setdefault(f"{group}/{user}", []).extend(r.id for r in records)
                tokens += new
            elif kind < 0.5 and mine:
                whole = rng.choice(sorted(mine))
                ids = mine.pop(whole)
                count = gallery.remove(whole[0], user_id=whole)
                log.removed.append((time.monotonic_ns(), ids))
                if count != len(ids):
                    log.errors.append(f"{count} faces removed, {len(ids)} were added")
            else:
                where = rng.choice([None, None, [group], ["a", "c"]])
                ask(gallery, rng.choice(tokens), where, log)
    except Exception:
        log.errors.append(traceback.format_exc())


def reader(
    address: str, opened: dict[str, Any], number: int, ready: Any, deadline: Any, results: Any
) -> None:
    """Search in a separate process."""
    log = Log()
    record_states()
    rng = random.Random(1000 + number)
    engine: Any = TemplateEngine()
    try:
        with Gallery(address, engine, read_only=True, **opened) as gallery:
            ready.release()
            while time.monotonic() < deadline.value:
                some = gallery.records(None, rng.randrange(max(1, len(gallery))), 1)
                token = some[0].user_id if some else "nobody"
                ask(gallery, token, rng.choice([None, ["b"]]), log)
    except Exception:
        log.errors.append(traceback.format_exc())
    results.put(log)


def verify(logs: list[Log], removals: list[int]) -> dict[str, Any]:
    """Replay the changes serially, with every search at its position among them.

    Parameters
    ----------
    logs : list of Log
    removals : list of int
        Row ids in the store's order of removal.
    """
    problems = [error for log in logs for error in log.errors]
    added = sorted((a for log in logs for a in log.added), key=lambda a: a[2])
    rows = np.array([a[2] for a in added], np.int64)
    if rows.tolist() != list(range(1, len(rows) + 1)):
        problems.append("the ids of the faces are not those of one serial run")
        return {"problems": problems}
    names = {a[1]: a[2] for a in added}
    vectors = np.stack([template(a[4]) for a in added]).astype(np.float64)
    groups = np.array([a[3] for a in added])
    gone_at = np.full(len(rows) + 1, np.iinfo(np.int64).max)
    for place, row in enumerate(removals, 1):
        gone_at[row] = place
    known = sorted(row for log in logs for _, ids in log.removed for row in ids)
    if known != sorted(removals):
        problems.append("the removals of the store are not those that were acknowledged")
    # Minimum state for a search by start time: running maxima of the acknowledgements.
    face_acks = sorted((a[0], a[2]) for a in added)
    removal_acks = sorted(
        (at, int(max(gone_at[row] for row in ids))) for log in logs for at, ids in log.removed
    )
    checked = 0
    for answer in (answer for log in logs for answer in log.answers):
        face, removal = answer.state
        if face < seen_by(face_acks, answer.began) or removal < seen_by(removal_acks, answer.began):
            problems.append(f"a search at {answer.state} missed what was acknowledged before it")
        there = (rows <= face) & (gone_at[1:] > removal)
        if answer.groups is not None:
            there &= np.isin(groups, answer.groups)
        of = np.flatnonzero(there)
        similarity = vectors[of] @ template(answer.token).astype(np.float64)
        best = of[np.lexsort((rows[of], -similarity))[:LIMIT]]
        if [names.get(match.face_id) for match in answer.matches] != rows[best].tolist():
            problems.append(f"a search at {answer.state} differs from the serial run")
        checked += 1
    return {"searches checked": checked, "additions": len(rows), "problems": problems[:10]}


def seen_by(acknowledged: list[tuple[int, int]], moment: int) -> int:
    """Return the greatest number acknowledged before a time."""
    from bisect import bisect_left

    key = id(acknowledged)
    if key not in _maxima:
        times = [at for at, _ in acknowledged]
        _maxima[key] = (times, np.maximum.accumulate([0, *(n for _, n in acknowledged)]))
    times, highest = _maxima[key]
    return int(highest[bisect_left(times, moment)])


_maxima: dict[int, tuple[list[int], Any]] = {}


def run(
    folder: Path,
    seconds: float,
    threads: int = 8,
    readers: int = 2,
    index: Any = "exact",
    key: bytes | None = None,
) -> dict[str, Any]:
    """Run all workers on a gallery in an empty folder; return the result as JSON types."""
    record_states()
    opened = {"index": index, "key": key}
    engine: Any = TemplateEngine()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    logs = [Log() for _ in range(threads)]
    with Gallery(folder, engine, **opened) as gallery:
        for group in GROUPS:
            gallery.create_group(group)
        gallery.search(template("nobody"))
        ready, deadline = context.Semaphore(0), context.Value("d", float("inf"))
        processes = [
            context.Process(target=reader, args=(str(folder), opened, i, ready, deadline, results))
            for i in range(readers)
        ]
        for process in processes:
            process.start()
        for _ in processes:  # a spawned process imports first
            ready.acquire(timeout=60)
        deadline.value = time.monotonic() + seconds
        workers = [
            threading.Thread(target=worker, args=(gallery, i, deadline.value, log))
            for i, log in enumerate(logs)
        ]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        logs += [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        left = {record.id for record in gallery.records(limit=10**9)}
        with gallery._backend._store.snapshot() as snapshot:  # type: ignore[attr-defined]
            removals = [row[0] for row in snapshot._all("SELECT face FROM removals ORDER BY seq")]
        kind = gallery.stats().index
    outcome = verify(logs, removals)
    wanted = {a[2] for log in logs for a in log.added} - set(removals)
    if left != wanted:
        outcome["problems"].append(f"lost {len(wanted - left)}, phantom {len(left - wanted)}")
    answers = Counter(
        "searches in readers" if i >= threads else "searches in threads"
        for i, log in enumerate(logs)
        for _ in log.answers
    )
    return {
        "seconds": seconds,
        "threads": threads,
        "readers": readers,
        "index at the end": kind,
        "encrypted": key is not None,
        **answers,
        "removals": len(removals),
        **outcome,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--index", default="exact", choices=("exact", "hnsw"))
    parser.add_argument("--encrypted", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(
            Path(folder) / "a.gallery",
            args.seconds,
            args.threads,
            args.readers,
            args.index,
            bytes(range(32)) if args.encrypted else None,
        )
    print(json.dumps(result, indent=1))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    # Run it as a module: the child processes import it by name.
    from benchmarks import concurrency

    sys.exit(concurrency.main())
