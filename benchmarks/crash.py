"""kill -9 at random moments while a gallery changes: does every acknowledged change survive?

    python -m benchmarks crash [--kills 200] [--index hnsw] [--seed 0] [--encrypted]
        [--faults 200]

A child process adds, replaces and removes faces, deletes groups, compacts, and closes and reopens
the gallery, which saves the index.  It reports each operation to its parent before and after.
The parent kills it, opens the gallery and checks it: all acknowledged operations must be present,
the pending one completely or not at all, and nothing else.  No file may contain a removed
template.  With --faults N, one in N writes and syncs of the child fails with EIO: an operation must
then work, or raise GalleryNotWritable and change nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from templates import TemplateEngine, template

from benchmarks import _faults
from facecore import Gallery, GalleryNotWritable
from facecore.gallery.sqlite import hnsw_builder, saved_index

GROUPS = ("staff", "visitors")
KEY = bytes(range(32))
# A face is (group, user, token); its template belongs to the token.
Face = tuple[str, str, str]
State = dict[str, Counter[Face]]
FAILED = ("failed",)


def apply(state: State, work: tuple[Any, ...]) -> State:
    """Return the state after an operation."""
    new = {group: Counter(faces) for group, faces in state.items()}
    match work:
        case ("create", group):
            new[group] = Counter()
        case ("delete", group):
            del new[group]
        case ("add", group, pairs):
            new[group].update((group, user, token) for user, token in pairs)
        case ("replace", group, user, token):
            new[group] = Counter(f for f in new[group].elements() if f[1] != user)
            new[group][group, user, token] += 1
        case ("remove", group, user):
            new[group] = Counter(f for f in new[group].elements() if f[1] != user)
    return new


def do(gallery: Gallery, work: tuple[Any, ...]) -> None:
    match work:
        case ("create", group):
            gallery.create_group(group)
        case ("delete", group):
            gallery.delete_group(group)
        case ("add", group, pairs):
            vectors = np.stack([template(token) for _, token in pairs])
            users = [user for user, _ in pairs]
            gallery.add_templates(group, vectors, users, contract=gallery.contract_id)
        case ("replace", group, user, token):
            gallery.add(group, template(token), user, on_existing="replace")
        case ("remove", group, user):
            gallery.remove(group, user_id=user)
        case ("compact",):
            gallery.compact()
        case ("search", token):
            gallery.search(template(token))


def choose(rng: random.Random, state: State, count: int) -> tuple[Any, ...]:
    """Choose the next operation."""
    missing = [group for group in GROUPS if group not in state]
    if missing:
        return "create", missing[0]
    group = rng.choice(GROUPS)
    users = sorted({face[1] for face in state[group]})
    token = f"{count}-{rng.getrandbits(32):08x}"
    kind = rng.choices(
        ["add", "replace", "remove", "delete", "compact", "reopen", "search"],
        [30, 15, 25, 1, 4, 8, 5],
    )[0]
    if kind == "add" or not users:
        size = rng.choice([1, 1, 3, 40])
        return "add", group, [(f"u{rng.randrange(60)}", f"{token}-{i}") for i in range(size)]
    if kind == "replace":
        return "replace", group, rng.choice(users), token
    if kind == "remove":
        return "remove", group, rng.choice(users)
    return {
        "delete": ("delete", group),
        "compact": ("compact",),
        "reopen": ("reopen",),
        "search": ("search", token),
    }[kind]


def child(
    folder: Path, opened: dict[str, Any], state: State, seed: int, pipe: int, faults: int
) -> None:
    """Change the gallery until this process is killed."""
    rng = random.Random(seed)
    if faults:
        _faults.begin(faults, seed)
    gallery = reopened(folder, opened)
    count = seed * 1_000_000
    while True:
        work = choose(rng, state, count)
        tell(pipe, work)
        count += 1
        if work == ("reopen",):
            gallery.close()
            gallery = reopened(folder, opened)
        else:
            try:
                do(gallery, work)
            except GalleryNotWritable:
                if not faults:
                    raise
                tell(pipe, FAILED)
                tell_difference(pipe, gallery, state, work)
                continue
        tell(pipe, None)
        state = apply(state, work)


def reopened(folder: Path, opened: dict[str, Any]) -> Gallery:
    engine: Any = TemplateEngine()
    while True:
        try:
            return Gallery(folder, engine, **opened)
        except GalleryNotWritable:
            if "LD_PRELOAD" not in os.environ:
                raise


def tell_difference(pipe: int, gallery: Gallery, state: State, work: tuple[Any, ...]) -> None:
    """Report a gallery that a failed operation changed."""
    expected = Counter(face[:2] for faces in state.values() for face in faces.elements())
    holds = Counter((record.group, record.user_id) for record in gallery.records(limit=10**9))
    if holds != expected:
        tell(pipe, ("wrong", f"{work[:2]} failed, and changed {holds - expected}"))


def tell(pipe: int, what: object) -> None:
    data = pickle.dumps(what)
    os.write(pipe, len(data).to_bytes(4, "little") + data)


def heard(data: bytes) -> list[Any]:
    """Parse the child's reports; the last one may be truncated."""
    told = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 + size:
            break
        told.append(pickle.loads(data[4 : 4 + size]))
        data = data[4 + size :]
    return told


def run_child(
    folder: Path, opened: dict[str, Any], state: State, seed: int, delay: float, faults: int
) -> list[Any]:
    """Start a child, kill it `delay` seconds after its first report; return its reports."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        try:
            os.close(reading)
            child(folder, opened, state, seed, writing, faults)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(7)
    os.close(writing)
    data, deadline = b"", None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], left)[0]:
            break
        more = os.read(reading, 1 << 20)
        if not more:
            break  # it ended by itself
        data += more
        deadline = deadline or time.monotonic() + delay
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    while more := os.read(reading, 1 << 20):
        data += more
    os.close(reading)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the child ended by itself, with status {os.WEXITSTATUS(status)}")
    return heard(data)


def found(gallery: Gallery, tokens: dict[bytes, str]) -> State:
    """Return the contents of a gallery, identified by its templates."""
    state: State = {group.name: Counter() for group in gallery.groups()}
    for records, vectors in gallery.templates():
        for record, vector in zip(records, vectors, strict=True):
            state[record.group][record.group, record.user_id, tokens[vector.tobytes()]] += 1
    return state


def check(
    folder: Path, opened: dict[str, Any], possible: list[State], tokens: dict[bytes, str]
) -> tuple[State, list[str]]:
    """Open a gallery after a kill; return its contents and any errors."""
    engine: Any = TemplateEngine()
    wrong = []
    with Gallery(folder, engine, **opened) as gallery:
        state = found(gallery, tokens)
        if state not in possible:
            wrong.append(f"holds what was never acknowledged: {difference(state, possible)}")
        for group in gallery.groups():
            if group.size != state[group.name].total():
                wrong.append(f"{group.name} says {group.size} faces")
        live = {face[2] for faces in state.values() for face in faces}
        for token in sorted(live)[:: max(1, len(live) // 20)]:
            best = gallery.search(template(token), limit=1)
            if not best or best[0].similarity < 0.9999:
                wrong.append(f"a search does not find {token}")
        everything = gallery.search(template("anybody"), limit=len(gallery) + 1)
        if len(everything) != len(gallery):
            wrong.append(f"a search finds {len(everything)} of {len(gallery)}")
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    codes = {t.tobytes()[16:48]: name for t, name in ((template(n), n) for n in tokens.values())}
    left = [name for part, name in codes.items() if name not in live and part in files]
    if left:
        wrong.append(f"{len(left)} removed templates are in a file")
    return state, wrong


def difference(state: State, possible: list[State]) -> str:
    have = sum(state.values(), Counter())
    want = sum(possible[0].values(), Counter())
    return (
        f"lost {list((want - have).elements())[:3]}, phantom {list((have - want).elements())[:3]}"
    )


def run(
    kills: int, index: str, seed: int, encrypted: bool = False, faults: int = 0
) -> dict[str, Any]:
    """Kill `kills` children on one gallery; return the result as JSON types."""
    # Makes a gallery of a few hundred faces behave like one of millions.
    for module in (saved_index, hnsw_builder):
        module.WORTHWHILE = 1  # type: ignore[attr-defined]
    logging.getLogger("facecore.gallery").setLevel(logging.ERROR)
    opened = {"index": index, "key": KEY if encrypted else None}
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="crash-")) / "a.gallery"
    state: State = {}
    tokens: dict[bytes, str] = {}
    interrupted: Counter[str] = Counter()
    problems, done, failed, whole = [], 0, 0, 0
    try:
        warm_up(folder.parent, opened)
        for number in range(kills):
            told = run_child(
                folder, opened, state, seed * 100_003 + number, rng.expovariate(4), faults
            )
            pending, since = None, []
            for work in told:
                if work is None:
                    state, pending, since = apply(state, pending), None, []
                    done += 1
                elif work == FAILED:
                    # The commit may have reached the log and survive the kill.
                    since.append(pending)
                    pending = None
                    failed += 1
                elif work[0] == "wrong":
                    problems.append(work[1])
                else:
                    pending = work
                    for token in tokens_of(work):
                        tokens[template(token).tobytes()] = token
            possible = [state, *(apply(state, work) for work in [*since, pending] if work)]
            interrupted[pending[0] if pending else "nothing"] += 1
            before = state
            state, wrong = check(folder, opened, possible, tokens)
            whole += state != before
            problems += [f"kill {number}, during {pending}: {text}" for text in wrong]
    finally:
        shutil.rmtree(folder.parent)
    return {
        "kills": kills,
        "index": index,
        "encrypted": encrypted,
        "acknowledged": done,
        "failed": failed,
        "killed during": dict(interrupted.most_common()),
        "unacknowledged but whole": whole,
        "faces at the end": sum(state.values(), Counter()).total(),
        "problems": problems,
    }


def tokens_of(work: tuple[Any, ...]) -> list[str]:
    if work[0] == "add":
        return [token for _, token in work[2]]
    return [work[3]] if work[0] == "replace" else []


def warm_up(folder: Path, opened: dict[str, Any]) -> None:
    """Compile the search kernels once for all children."""
    engine: Any = TemplateEngine()
    with Gallery(folder / "warm.gallery", engine, **opened) as gallery:
        do(gallery, ("create", "g"))
        do(gallery, ("add", "g", [("u", "t")]))
        do(gallery, ("search", "t"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--index", default="exact", choices=("exact", "hnsw"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encrypted", action="store_true")
    parser.add_argument("--faults", type=int, default=0, metavar="N", help="one in N fails")
    args = parser.parse_args(arguments)
    if args.faults:
        with tempfile.TemporaryDirectory() as place:
            _faults.run_again(Path(place))
    result = run(args.kills, args.index, args.seed, args.encrypted, args.faults)
    print(json.dumps(result, indent=1))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
