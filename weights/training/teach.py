"""Step 1 of the embedder: show the teacher more faces than there are, and keep its answers.

A student that meets 23,569 crops again and again learns them by heart: it agreed with
its teacher at a cosine of 0.88 on those crops and 0.77 on other people.  So each crop is
drawn many times, always as another face: bent by a smooth field, mixed with another
person, or given another person's eyes, mouth or half.  What such a face is, the teacher
says.  Kept for each: the pixels, the teacher's vector, its last 14x14 and 7x7
bottleneck maps (int8, one scale per channel), and the celebrity that it shows, bent or not, where
no other face was mixed in.  With the answers on disk the teacher is out of the training loop.

    python weights/training/teach.py --out /somewhere/taught1 --seed 1      # one core each
    python weights/training/teach.py --out /somewhere/taught2 --seed 2

``--people`` draws celebrities and LFW's people of whom there are several pictures, photographs
beside the crops; it moves them a little instead of making other faces of them, and keeps no maps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from data import crops, data_root, photographs
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from facecore import FaceEngine, images
from facecore.face.alignment import TEMPLATE, estimate, warp

BATCH = 8
MAPS = {"map14": (128, 14, 14), "map7": (128, 7, 7)}


def load_teacher(path: Path) -> tuple[ort.InferenceSession, list[str]]:
    """The teacher with its last 14x14 and 7x7 bottleneck maps as extra outputs."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)[1:]
        for v in model.graph.value_info
    }
    taps = []
    for shape in MAPS.values():
        name = [
            node.output[0]
            for node in model.graph.node
            if node.op_type == "Add" and shapes.get(node.output[0]) == shape
        ][-1]
        taps.append(name)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # two processes of one thread do more than one of two
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, [model.graph.output[0].name, *taps]


def bend(
    crop: NDArray[np.uint8], rng: np.random.Generator, deviation: float = 1.5
) -> NDArray[np.uint8]:
    """128 -> 112 pixels: the jitter of real landmark errors, and a smooth field of a few pixels.

    The field lengthens a nose, widens a jaw, lifts a brow: another face for the teacher.  Its size
    is drawn with this `deviation`, in pixels; with 0 a face is only moved.
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
    """Put something blurred behind a face that was cut out onto black, as most celebrities were."""
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
    """`face` with each channel's mean and deviation of `model` (Reinhard et al. 2001)."""
    f, m = face.astype(np.float32), model.astype(np.float32)
    gain = np.clip(m.std((0, 1)) / np.maximum(f.std((0, 1)), 8), 0.5, 2)
    return np.clip((f - f.mean((0, 1))) * gain + m.mean((0, 1)), 0, 255).astype(np.uint8)


def seam(rng: np.random.Generator) -> NDArray[np.float32]:
    """Weights (112, 112, 1) that pass softly from one face to the other across a line."""
    angle = rng.choice([0.0, np.pi / 2, np.pi]) + rng.normal(0, 0.35)
    x, y = np.meshgrid(np.arange(112.0) - 55.5, np.arange(112.0) - 60)
    distance = np.cos(angle) * x + np.sin(angle) * y - rng.normal(0, 14)
    return (1 / (1 + np.exp(-distance / rng.uniform(2, 9))))[..., None].astype(np.float32)


def draw(
    index: int, pool: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], bool]:
    """A face (112, 112, 3) that begins with crop `index`, and whether no other was mixed in."""

    def another() -> NDArray[np.uint8]:
        return np.asarray(pool[rng.integers(len(pool))])

    kind = rng.random()
    if kind < 0.08:
        return pool[index, 8:120, 8:120], True
    crop = pool[index]
    if rng.random() < 0.7:
        crop = with_background(crop, another(), rng)
    face = bend(crop, rng)
    if kind < 0.4:
        return face, True
    other = bend(another(), rng)
    if rng.random() < 0.7:
        other = coloured_like(other, face)
    weight = seam(rng) if kind < 0.72 else np.float32(rng.uniform(0.3, 0.7))
    return np.rint(face * weight + other * (1 - weight)).astype(np.uint8), False


def move(index: int, pool: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Crop `index` (112, 112, 3) as another detection would cut it out."""
    crop = pool[index]
    if rng.random() < 0.7:
        crop = with_background(crop, np.asarray(pool[rng.integers(len(pool))]), rng)
    return bend(crop, rng, deviation=0)


def photographed(root: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """LFW's photographs for training, cut out as `crops` are, with the detector of the pack."""
    engine = FaceEngine("compact", threads=1)
    for person, path in photographs(root):
        face = engine.sample(path, face="central").face
        transform = estimate(face.landmarks, TEMPLATE + 8)
        crop = warp(images.load(path), transform.matrix, (128, 128))
        yield f"lfw_rest/{person}_{path.stem[-4:]}", crop


def whom(names: Sequence[str]) -> NDArray[np.str_]:
    """The celebrity or the person of LFW that each crop shows; empty for the others."""
    known = ("celebrities/", "lfw_rest/")
    return np.array([name.rsplit("_", 1)[0] if name.startswith(known) else "" for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, default=data_root() / "weights/espdl/mfn_112.onnx")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000, help="faces drawn")
    parser.add_argument("--people", action="store_true", help="only people of several pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(args.seed)
    named = list(crops(data_root()))
    if args.people:
        named += photographed(data_root())
    pool = np.stack([image for _, image in named])
    people = whom([name for name, _ in named])
    eligible = np.arange(len(pool))
    if args.people:
        _, number, pictures = np.unique(people, return_inverse=True, return_counts=True)
        eligible = np.flatnonzero((people != "") & (pictures[number] > 1))
    # Nobody learns who is who in LFW: these people occur in the test pairs, in other pictures.
    people[np.char.startswith(people, "lfw_rest/")] = ""
    session, outputs = load_teacher(args.teacher)
    kept = {} if args.people else MAPS
    outputs = outputs[: 1 + len(kept)]
    source = session.get_inputs()[0].name

    def ask(shown: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        rgb = shown[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        return session.run(outputs, {source: (rgb - 127.5) / 127.5})

    # One scale per channel, the same for every seed; the rare larger value is clipped.
    chosen = np.random.default_rng(0).permutation(len(pool))[:256]
    scales = {
        name: np.quantile(np.abs(values), 0.9995, axis=(0, 2, 3)).astype(np.float32) / 127
        for name, values in zip(kept, ask(pool[chosen, 8:120, 8:120])[1:], strict=True)
    }
    faces = open_memmap(args.out / "images.npy", "w+", np.uint8, (args.count, 112, 112, 3))
    vectors = open_memmap(args.out / "vectors.npy", "w+", np.float32, (args.count, 512))
    maps = {
        name: open_memmap(args.out / f"{name}.npy", "w+", np.int8, (args.count, *shape))
        for name, shape in kept.items()
    }
    person = np.zeros(args.count, people.dtype)
    rounds = args.count // len(eligible) + 1
    order = np.concatenate([rng.permutation(len(eligible)) for _ in range(rounds)])
    for start in tqdm(range(0, args.count, BATCH), desc="teacher", unit_scale=BATCH):
        here = slice(start, min(start + BATCH, args.count))
        for place, index in enumerate(eligible[order[here]], start):
            if args.people:
                faces[place], alone = move(index, pool, rng), True
            else:
                faces[place], alone = draw(index, pool, rng)
            person[place] = people[index] if alone else ""
        raw, *answers = ask(faces[here])
        vectors[here] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        for name, values in zip(kept, answers, strict=True):
            steps = values / scales[name][:, None, None]
            maps[name][here] = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    np.save(args.out / "person.npy", person)
    meta = {
        "teacher": args.teacher.name, "seed": args.seed, "crops": len(pool), "people": args.people
    }  # fmt: skip
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
