"""Evaluate embedders on the tenth of every training archive that is held out from version 5 on.

For each archive: the true-accept rate at a false-accept rate of 0.1 %, of the pack's embedder and
of its teacher on the same pictures, and the pack's false-match rates at its scores of 70, 80
and 90.  Most archives hold one picture per person, so a genuine pair is a crop and a copy of it
with another alignment, light, blur and compression.  Celebrities have several pictures, so their
unchanged pictures form genuine pairs too.  Pairs that the teacher takes for one person (cosine of
0.5 and above) are no impostor pairs: an archive can show a person twice under two names.

    python weights/training/holdout.py weights/compact/embedder.onnx [--pack weights/compact]
    python weights/training/holdout.py --populations compact mobilefacenet
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from data import ARCHIVES, crops, data_root, person_of
from degrade import degrade
from numpy.typing import NDArray
from teach import bend
from teacher import Teacher

from facecore.face.embedding import Embedder
from facecore.models.packs import load_pack
from facecore.models.session import create_session

ONE_PERSON = 0.5  # teacher's cosine
Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class Student:
    """An embedder's ONNX file on one thread: BGR crops (N, 112, 112, 3) -> unit vectors."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.source = self.session.get_inputs()[0].name

    def __call__(self, faces: NDArray[np.uint8]) -> Vectors:
        out = []
        for i in range(0, len(faces), 32):
            rgb = faces[i : i + 32, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
            out.append(self.session.run(None, {self.source: (rgb - 127.5) / 127.5})[0])
        return unit(np.concatenate(out))


class Judge:
    """The teacher on a face and its mirror image: unit vectors (N, 512)."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or data_root() / "weights/espdl/mfn_112.onnx"
        torch.set_num_threads(1)  # two wait for each other if a training holds a core
        self.teacher = Teacher(path, torch.bfloat16)

    def __call__(self, faces: NDArray[np.uint8]) -> Vectors:
        out = []
        for i in range(0, len(faces), 32):
            some = faces[i : i + 32]
            out.append(self.teacher(some)[0].numpy() + self.teacher(some[:, :, ::-1])[0].numpy())
        return unit(np.concatenate(out))


def held_out_sets() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.str_]]]:
    """Yield (archive, crops (N, 128, 128, 3), their names ``archive/file``) of every archive."""
    for archive in ARCHIVES:
        names, faces = zip(*crops(data_root(), development=True, archives=[archive]), strict=True)
        yield archive, np.stack(faces), np.array(names)


def copies(faces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of each crop as from another camera, (N, 112, 112, 3)."""
    rng = np.random.default_rng(5)
    return np.stack([degrade(bend(face, rng, deviation=0), rng)[0] for face in faces])


def tar(genuine: Vectors, impostor: Vectors, far: float = 1e-3) -> float:
    return float((genuine > np.quantile(impostor, 1 - far)).mean())


def populations(pack: str) -> Iterator[str]:
    """Yield a pack's FMR at the scores 70, 80 and 90, among people who look less or more alike.

    The people are adults of UTKFace; its file names hold age, sex and origin (labels of the set).
    """
    loaded = load_pack(pack)
    embedder = Embedder(create_session(loaded.embedder, threads=1, name="e"), loaded.pack.embedder)
    knots = [k for k in loaded.pack.embedder.calibration.knots if k.score in (70, 80, 90)]
    faces, labels = [], []
    for archive, pictures, names in held_out_sets():
        if archive.startswith("utkface"):
            fields = [name.partition("/")[2].split("_")[:3] for name in names]
            told = [all(f.isdigit() for f in some) and int(some[0]) >= 16 for some in fields]
            faces.append(pictures[told][:, 8:120, 8:120])
            labels += [[int(f) for f in some] for some, t in zip(fields, told, strict=True) if t]
    crops = np.ascontiguousarray(np.concatenate(faces))
    vectors = np.concatenate([embedder.embed(crops[i : i + 32]) for i in range(0, len(crops), 32)])
    alike = Judge()(crops)
    apart = np.triu(alike @ alike.T < ONE_PERSON, 1)
    age, sex, origin = np.array(labels).T
    near = (age[:, None] // 10 == age[None] // 10) & (sex[:, None] == sex[None])
    for title, pairs in (
        ("any two", apart),
        ("same sex and decade of age", apart & near),
        ("and same origin", apart & near & (origin[:, None] == origin[None])),
    ):
        similarity = (vectors @ vectors.T)[pairs]
        rates = "  ".join(f"{(similarity >= k.similarity).mean():.3%}" for k in knots)
        yield f"{pack:<16}{title:<30}{len(similarity):>9} pairs  {rates}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("embedder", type=Path, nargs="*")
    parser.add_argument("--pack", type=Path, help="folder of the pack whose table is judged")
    parser.add_argument("--populations", nargs="+", metavar="PACK", help="print only these rates")
    args = parser.parse_args()
    for pack in args.populations or ():
        print("\n".join(populations(pack)), flush=True)
    if not args.embedder:
        return
    judge, students = Judge(), [Student(path) for path in args.embedder]
    knots = []
    if args.pack:
        manifest = tomllib.loads((args.pack / "pack.toml").read_text(encoding="utf-8"))
        knots = [k["similarity"] for k in manifest["embedder"]["calibration"]["knots"]
                 if k["score"] in (70, 80, 90)]  # fmt: skip
    print(f"{'archive':<15}{'crops':>6}{'teacher':>9}", end="")
    print("".join(f"{path.parent.name[-12:]:>14}" for path in args.embedder), end="")
    print("   FMR at 70, 80, 90" if knots else "")
    sums = []
    for archive, pictures, names in held_out_sets():
        people = np.array([person_of(name) for name in names])
        clean = np.ascontiguousarray(pictures[:, 8:120, 8:120])
        other = copies(pictures)
        alike = judge(clean) @ judge(clean).T
        strangers = np.triu((people[:, None] != people[None]) & (alike < ONE_PERSON), 1)
        row, rates = [], []
        for model in (judge, *students):
            a, b = model(clean), model(other)
            impostor = (a @ b.T)[strangers]
            row.append(tar((a * b).sum(1), impostor))
            if knots and model is not judge:
                plain = (a @ a.T)[strangers]
                rates = [float((plain >= k).mean()) for k in knots]
            several = np.triu(people[:, None] == people[None], 1)
            if archive == "celebrities":
                row.append(tar((a @ a.T)[several], (a @ a.T)[strangers]))
        shown = row[::2] if archive == "celebrities" else row
        sums.append(shown)
        print(f"{archive:<15}{len(clean):>6}{shown[0]:>9.3f}", end="")
        print("".join(f"{value:>14.3f}" for value in shown[1:]), end="")
        print("   " + " ".join(f"{rate:.3%}" for rate in rates))
        if archive == "celebrities":
            print(
                f"{'  pictures':<15}{'':>6}{row[1]:>9.3f}"
                + "".join(f"{v:>14.3f}" for v in row[3::2])
            )
    mean = np.mean(sums, axis=0)
    print(f"{'mean':<21}{mean[0]:>9.3f}" + "".join(f"{value:>14.3f}" for value in mean[1:]))


if __name__ == "__main__":
    main()
