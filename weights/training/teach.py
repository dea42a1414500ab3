"""Step 1 of the embedder: ask the teacher once, keep its answers.

For every training crop three views are drawn (as is; a small similarity jitter; a
mixture with another crop) and each is shown to the teacher twice, plain and mirrored.
Kept for each of the six images: the pixels, the teacher's last 14x14 and 7x7
bottleneck maps (int8, one scale per channel), and for each view the flip-averaged
vector.  With the answers on disk the teacher is out of the training loop.

    python weights/training/teach.py --out /somewhere/taught
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from data import crops, data_root
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

VIEWS = ("plain", "jitter", "mixture")
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
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session, [model.graph.output[0].name, *taps]


def jitter(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Similarity jitter of the size that real landmark errors cause, 128 -> 112 pixels."""
    turn = cv2.getRotationMatrix2D((63.5, 63.5), rng.normal(0, 4), np.exp(rng.normal(0, 0.05)))
    turn[:, 2] += rng.normal(0, 2, 2) - 8
    return np.asarray(cv2.warpAffine(crop, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE))


def draw_view(
    view: str, index: int, pool: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    if view == "plain":
        return pool[index, 8:120, 8:120]
    if view == "jitter":
        return jitter(pool[index], rng)
    other = jitter(pool[rng.integers(len(pool))], rng)
    weight = rng.uniform(0.3, 0.7)
    return cv2.addWeighted(jitter(pool[index], rng), weight, other, 1 - weight, 0).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, default=data_root() / "weights/espdl/mfn_112.onnx")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=None, help="first N crops only, for a trial")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(args.seed)
    pool = np.stack([image for _, image in crops(data_root())][: args.limit])
    session, outputs = load_teacher(args.teacher)
    source = session.get_inputs()[0].name

    def ask(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        rgb = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        return session.run(outputs, {source: (rgb - 127.5) / 127.5})

    # One scale per channel from a sample; the rare larger value is clipped.
    sample = ask(pool[rng.permutation(len(pool))[:256], 8:120, 8:120])[1:]
    scales = {
        name: np.quantile(np.abs(values), 0.9995, axis=(0, 2, 3)).astype(np.float32) / 127
        for name, values in zip(MAPS, sample, strict=True)
    }
    np.savez(args.out / "scales.npz", **scales)

    total = len(pool) * len(VIEWS)
    images = open_memmap(args.out / "images.npy", "w+", np.uint8, (total, 2, 112, 112, 3))
    vectors = open_memmap(args.out / "vectors.npy", "w+", np.float32, (total, 512))
    maps = {
        name: open_memmap(args.out / f"{name}.npy", "w+", np.int8, (total, 2, *shape))
        for name, shape in MAPS.items()
    }
    batch = 16
    for start in tqdm(range(0, total, batch), desc="teacher", unit_scale=batch):
        rows = range(start, min(start + batch, total))
        plain = np.stack([draw_view(VIEWS[r // len(pool)], r % len(pool), pool, rng) for r in rows])
        mirrored = plain[:, :, ::-1]
        here = slice(start, start + len(rows))
        images[here] = np.stack([plain, mirrored], axis=1)
        answers = [ask(plain), ask(mirrored)]
        unit = [a[0] / np.linalg.norm(a[0], axis=1, keepdims=True) for a in answers]
        mean = unit[0] + unit[1]
        vectors[here] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        for position, name in enumerate(MAPS, start=1):
            both = np.stack([a[position] for a in answers], axis=1)
            steps = both / scales[name][:, None, None]
            maps[name][here] = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    meta = {"teacher": args.teacher.name, "seed": args.seed, "crops": len(pool), "views": VIEWS}
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
