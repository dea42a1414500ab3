"""Published test sets, run as their authors say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.engine import FaceChoice, FaceEngine
from facecore.errors import FacecoreError, InvalidParameter
from facecore.evaluation.metrics import fmr, k_fold_accuracy, tar_at_far
from facecore.matching.similarity import cosine

__all__ = ["LfwResult", "LondonResult", "lfw", "london"]


@dataclass(frozen=True, slots=True)
class LfwResult:
    """Labeled Faces in the Wild, View 2.

    Attributes
    ----------
    accuracy, deviation : float
        Mean over the folds and its standard error, 0..1.
    tar_at_far : dict of float to float
        True accept rate over all pairs, by false accept rate.
    fmr_at_threshold, fnmr_at_threshold : float
        At the engine's own threshold.
    pairs, skipped : int
        A pair is skipped where an image has no vector; the accuracy counts it as wrong.
    images, without_face : int
    """

    accuracy: float
    deviation: float
    tar_at_far: dict[float, float]
    fmr_at_threshold: float
    fnmr_at_threshold: float
    pairs: int
    skipped: int
    images: int
    without_face: int

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people."""
        return [
            f"accuracy            {self.accuracy:.2%} ± {self.deviation:.2%} "
            f"({self.pairs:,} pairs, ten folds)",
            f"TAR at FAR 0.1 %    {self.tar_at_far[0.001]:.2%}",
            f"at the threshold    FMR {self.fmr_at_threshold:.3%}, "
            f"FNMR {self.fnmr_at_threshold:.2%}",
            f"pairs skipped       {self.skipped}",
            f"no face in          {self.without_face} of {self.images:,} pictures",
        ]


@dataclass(frozen=True, slots=True)
class LondonResult:
    """Neutral against smiling of the Face Research Lab London Set.

    Attributes
    ----------
    genuine, genuine_passing : int
        Pairs of one person.
    impostor, impostor_passing : int
        Ordered pairs of one person's neutral and another's smiling picture.
    without_face : int
        Images in which no face was found; their pairs count as not passing.
    threshold : float
        Score, 0..100.
    lowest_genuine : float
        Score of the worst genuine pair that could be compared.
    """

    genuine: int
    genuine_passing: int
    impostor: int
    impostor_passing: int
    without_face: int
    threshold: float
    lowest_genuine: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people."""
        share = self.impostor_passing / self.impostor
        return [
            f"genuine passing     {self.genuine_passing} of {self.genuine} "
            f"at score {self.threshold:g} (lowest {self.lowest_genuine:.1f})",
            f"impostors passing   {self.impostor_passing} of {self.impostor:,} ({share:.2%})",
            f"no face in          {self.without_face} pictures",
        ]


def embed_all(
    engine: FaceEngine, paths: Sequence[Path], face: FaceChoice, progress: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors (N, D) of all images, NaN where there is none, and which there are (N,)."""
    vectors: NDArray[np.float32] | None = None
    for i, answer in enumerate(engine.embed_many(paths, progress=progress, face=face)):
        if isinstance(answer, FacecoreError):
            continue
        if vectors is None:
            vectors = np.full((len(paths), len(answer)), np.nan, np.float32)
        vectors[i] = answer
    if vectors is None:
        raise InvalidParameter(f"none of the {len(paths)} images gave a vector")
    return vectors, ~np.isnan(vectors[:, 0])


def read_lfw_pairs(path: Path) -> list[tuple[int, bool, str, str]]:
    """Parse LFW's ``pairs.txt`` into (fold, same, ``Name/Name_0001.jpg``, the other)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        folds, size = (int(field) for field in lines[0].split())
        if min(folds, size) < 1:
            raise ValueError(f"{folds} folds of {size} pairs")
        pairs = []
        for number, line in enumerate(line for line in lines[1:] if line.strip()):
            fields, fold = line.split(), number // (2 * size)
            same = number % (2 * size) < size  # in each fold, first the pairs of one person
            if len(fields) != (3 if same else 4) or not set(line).isdisjoint("/\\"):
                raise ValueError(f"pair {number + 1} is {line.strip()!r}")
            a, i = fields[0], int(fields[1])
            b, j = (a, int(fields[2])) if same else (fields[2], int(fields[3]))
            names = f"{a}/{a}_{i:04d}.jpg", f"{b}/{b}_{j:04d}.jpg"
            pairs.append((fold, same, *names))
    except (ValueError, IndexError) as error:
        raise InvalidParameter(f"{path} is not a pairs file of LFW: {error}") from error
    if len(pairs) != (announced := 2 * folds * size):
        raise InvalidParameter(f"{path} holds {len(pairs)} pairs, its first line says {announced}")
    return pairs


def lfw(engine: FaceEngine, root: Path, *, progress: bool = False) -> LfwResult:
    """Ten-fold accuracy on the 6,000 pairs of LFW, one crop per picture, no flip.

    The face nearest to the centre stands for a picture, as LFW's pictures are centred on the
    labelled person.

    Parameters
    ----------
    engine : FaceEngine
    root : Path
        Holds ``pairs.txt`` and ``images/Name/Name_0001.jpg`` (or the names right inside it).
    progress : bool
        Show a progress bar.

    Raises
    ------
    InvalidParameter
        `root` is not laid out so, or a picture of a pair is missing.
    """
    if not (root / "pairs.txt").is_file():
        raise InvalidParameter(f"there is no pairs.txt in {root}", "give the folder of LFW")
    pairs = read_lfw_pairs(root / "pairs.txt")
    folder = root / "images" if (root / "images").is_dir() else root
    names = sorted({name for pair in pairs for name in pair[2:]})
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InvalidParameter(f"{folder} lacks {len(missing)} pictures, the first {missing[0]}")
    vectors, found = embed_all(engine, [folder / name for name in names], "central", progress)
    row = {name: i for i, name in enumerate(names)}
    first = np.array([row[pair[2]] for pair in pairs])
    second = np.array([row[pair[3]] for pair in pairs])
    same = np.array([pair[1] for pair in pairs])
    usable = found[first] & found[second]
    similarity = cosine(vectors[first], vectors[second])  # NaN where there is no vector
    fold = np.array([pair[0] for pair in pairs])
    accuracy = k_fold_accuracy(similarity, same, fold)
    impostor = similarity[~same & usable]  # what was not compared did not match falsely
    threshold = float(engine.calibration.similarity(engine.threshold))
    return LfwResult(
        accuracy=float(accuracy.mean()),
        deviation=float(accuracy.std(ddof=1) / np.sqrt(len(accuracy))),
        tar_at_far={far: tar_at_far(similarity[same], impostor, far) for far in (0.01, 0.001)},
        fmr_at_threshold=fmr(impostor, threshold),
        fnmr_at_threshold=1.0 - float((similarity[same] >= threshold).mean()),
        pairs=len(pairs),
        skipped=int((~usable).sum()),
        images=len(names),
        without_face=int((~found).sum()),
    )


def london(engine: FaceEngine, root: Path, *, progress: bool = False) -> LondonResult:
    """Every neutral picture against every smiling one, at the engine's threshold.

    Parameters
    ----------
    engine : FaceEngine
    root : Path
        Holds ``NNN_neutral.jpg`` and ``NNN_smiling.jpg``.
    progress : bool
        Show a progress bar.
    """
    neutral = sorted(root.glob("*_neutral.jpg"))
    smiling = [path.with_name(path.name.replace("_neutral", "_smiling")) for path in neutral]
    if len(neutral) < 2 or not all(path.is_file() for path in smiling):
        raise InvalidParameter(f"{root} does not hold pairs of NNN_neutral.jpg and NNN_smiling.jpg")
    vectors, found = embed_all(engine, [*neutral, *smiling], "largest", progress)
    count = len(neutral)
    score = engine.calibration.score(vectors[:count].astype(np.float64) @ vectors[count:].T)
    passing = score >= engine.threshold
    genuine = np.eye(count, dtype=bool)
    return LondonResult(
        genuine=count,
        genuine_passing=int(passing[genuine].sum()),
        impostor=count * (count - 1),
        impostor_passing=int(passing[~genuine].sum()),
        without_face=int((~found).sum()),
        threshold=engine.threshold,
        lowest_genuine=float(score[genuine & ~np.isnan(score)].min(initial=100.0)),
    )
