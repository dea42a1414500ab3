"""Step 1 of the embedder: draw new faces from the crops, and store the teacher's answers.

A student that sees the same crops again and again overfits.  So each crop is drawn many
times, often as another face: bent by a smooth field, mixed with another person, or given
another person's eyes, mouth or half.  The teacher's answer is the target for each face.  The
script stores the pixels, the mean of the teacher's vectors for the face and its mirror image,
the maps between the teacher's blocks (int8, one scale per channel), and the person if no
other face was mixed in.  With the answers on disk the training does not run the teacher.

    python weights/training/teach.py --out RUNS/taught1 --seed 1           # one core each
    python weights/training/teach.py --out RUNS/taught3 --seed 3 --no-maps # enough for --maps 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from data import crops, data_root, person_of
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from teacher import Teacher
from tqdm import tqdm

BATCH = 32
# Stored maps: tap of `Teacher.blocks` and the block after which it is read.
MAPS = {
    "map28": ("map28", 4), "map14a": ("map14", 0), "map14b": ("map14", 2),
    "map14c": ("map14", 4), "map14d": ("map14", 6), "map7a": ("map7", 0), "map7b": ("map7", 2),
}  # fmt: skip


def bend(
    crop: NDArray[np.uint8], rng: np.random.Generator, deviation: float = 1.5
) -> NDArray[np.uint8]:
    """Cut 128 to 112 pixels with the jitter of landmark errors, and bend by a smooth field.

    The field, of a few pixels, lengthens a nose, widens a jaw or lifts a brow: the teacher sees
    another face.  Its size is drawn with this `deviation`, in pixels; with 0 a face is only moved.
    """
    angle, zoom = np.deg2rad(rng.normal(0, 4)), np.exp(rng.normal(0, 0.05, 2) * (1.0, 0.6))
    x, y = np.meshgrid(np.arange(112.0) - 55.5, np.arange(112.0) - 55.5)
    column = (np.cos(angle) * x - np.sin(angle) * y) * zoom[0] + 63.5 + rng.normal(0, 1.8)
    row = (np.sin(angle) * x + np.cos(angle) * y) * zoom[0] * zoom[1] + 63.5 + rng.normal(0, 1.8)
    size = abs(rng.normal(0, deviation))
    knots = rng.normal(0, size, (2, 5, 5)).astype(np.float32)
    field = [cv2.resize(k, (112, 112), interpolation=cv2.INTER_CUBIC) for k in knots]
    return np.asarray(
        cv2.remap(
            crop, (column + field[0]).astype(np.float32), (row + field[1]).astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )
    )  # fmt: skip


def with_background(
    crop: NDArray[np.uint8], behind: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Put a blurred crop behind a face that was cut out onto black, as most celebrities were."""
    black = (crop.max(axis=2) < 12).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(black)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > 400)
    mask = np.isin(parts, large[large > 0]).astype(np.uint8)
    if not mask.any():
        return crop
    soft = cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3), np.uint8)) * 1.0, (0, 0), 0.8)
    blurred = cv2.GaussianBlur(behind[::-1], (0, 0), rng.uniform(1, 12))
    weight = soft[..., None]
    return np.rint(crop * (1 - weight) + blurred * weight).astype(np.uint8)


def coloured_like(face: NDArray[np.uint8], model: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give each channel of `face` the mean and deviation of `model` (Reinhard et al. 2001)."""
    f, m = face.astype(np.float32), model.astype(np.float32)
    gain = np.clip(m.std((0, 1)) / np.maximum(f.std((0, 1)), 8), 0.5, 2)
    return np.clip((f - f.mean((0, 1))) * gain + m.mean((0, 1)), 0, 255).astype(np.uint8)


def seam(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw weights (112, 112, 1) that blend from one face to another across a line."""
    angle = rng.choice([0.0, np.pi / 2, np.pi]) + rng.normal(0, 0.35)
    x, y = np.meshgrid(np.arange(112.0) - 55.5, np.arange(112.0) - 60)
    distance = np.cos(angle) * x + np.sin(angle) * y - rng.normal(0, 14)
    return (1 / (1 + np.exp(-distance / rng.uniform(2, 9))))[..., None].astype(np.float32)


def draw(
    index: int, pool: NDArray[np.uint8], rng: np.random.Generator, mixed: float
) -> tuple[NDArray[np.uint8], bool]:
    """Draw a face (112, 112, 3) from crop `index`; return it and whether no other is mixed in."""

    def another() -> NDArray[np.uint8]:
        return np.asarray(pool[rng.integers(len(pool))])

    kind = rng.random()
    crop = np.asarray(pool[index])
    if kind < 0.1:
        return crop[8:120, 8:120], True
    if rng.random() < 0.7:
        crop = with_background(crop, another(), rng)
    if kind < 0.4:  # as another detection would cut it out
        return bend(crop, rng, deviation=0), True
    face = bend(crop, rng)
    if kind < 1 - mixed:
        return face, True
    other = bend(another(), rng)
    if rng.random() < 0.7:
        other = coloured_like(other, face)
    half = rng.random() < 0.6
    weight = seam(rng) if half else np.float32(rng.uniform(0.3, 0.7))
    return np.rint(face * weight + other * (1 - weight)).astype(np.uint8), False


def load_pool(cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Load all training crops (N, 128, 128, 3) and their people; read the archives only once."""
    if not (cache / "people.npy").exists():
        cache.mkdir(parents=True, exist_ok=True)
        named = list(tqdm(crops(data_root()), desc="crops"))
        np.save(cache / "crops.npy", np.stack([image for _, image in named]))
        people = [person_of(name) for name, _ in named]
        np.save(cache / "people.npy", np.array(people))
    return np.load(cache / "crops.npy", mmap_mode="r"), np.load(cache / "people.npy")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pool", type=Path, help="cache of the decoded crops; default OUT/../pool")
    parser.add_argument("--teacher", type=Path, default=data_root() / "weights/espdl/mfn_112.onnx")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=65_536, help="faces drawn")
    parser.add_argument("--mixed", type=float, default=0.3, help="share with two people in one")
    parser.add_argument("--no-maps", action="store_true", help="keep the vectors only")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)

    pool, people = load_pool(args.pool or args.out.parent / "pool")
    teacher = Teacher(args.teacher, torch.bfloat16)
    taps = {} if args.no_maps else {k: teacher.blocks[t][i] for k, (t, i) in MAPS.items()}

    # One scale per channel, the same for every seed; the rare larger value is clipped.
    chosen = np.sort(np.random.default_rng(0).permutation(len(pool))[:256])
    sample = teacher(np.ascontiguousarray(pool[chosen, 8:120, 8:120]), list(taps.values()))[1:]
    scales = {
        name: np.quantile(np.abs(m.numpy()), 0.9995, axis=(0, 2, 3)).astype(np.float32) / 127
        for name, m in zip(taps, sample, strict=True)
    }
    faces = open_memmap(args.out / "images.npy", "w+", np.uint8, (args.count, 112, 112, 3))
    vectors = open_memmap(args.out / "vectors.npy", "w+", np.float16, (args.count, 512))
    maps = {
        # Channels last, like the student's maps in memory.
        name: open_memmap(
            args.out / f"{name}.npy", "w+", np.int8, (args.count, *m.shape[2:], m.shape[1])
        )
        for name, m in zip(taps, sample, strict=True)
    }  # fmt: skip
    person = np.zeros(args.count, people.dtype)
    rng = np.random.default_rng(args.seed)
    rounds = args.count // len(pool) + 1
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(rounds)])
    for start in tqdm(
        range(0, args.count, BATCH), desc="teacher", unit_scale=BATCH, mininterval=30
    ):
        here = slice(start, min(start + BATCH, args.count))
        for place, index in enumerate(order[here], start):
            faces[place], alone = draw(index, pool, rng, args.mixed)
            person[place] = people[index] if alone else ""
        raw, *answers = teacher(faces[here], list(taps.values()))
        turned = teacher(faces[here][:, :, ::-1])[0]
        both = torch.nn.functional.normalize(raw) + torch.nn.functional.normalize(turned)
        vectors[here] = torch.nn.functional.normalize(both).numpy()
        for name, values in zip(taps, answers, strict=True):
            steps = values.numpy().transpose(0, 2, 3, 1) / scales[name]
            maps[name][here] = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    np.save(args.out / "person.npy", person)
    meta = {"teacher": args.teacher.name, "seed": args.seed, "crops": len(pool)}
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
