"""Protocols of published test sets, and the same measurements on a user's pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from facecore._utils.extras import require_extra
from facecore.engine import FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation.all_pairs import Histograms
from facecore.evaluation.intervals import rate
from facecore.evaluation.measuring import (
    Clock,
    by_group,
    compare_pictures,
    embed_some,
    identify,
    operating_points,
    operating_thresholds,
)
from facecore.evaluation.metrics import fmr, fnmr, k_fold_accuracy, tar_at_far_rate
from facecore.evaluation.readers import (
    read_folder,
    read_labels,
    read_lfw_pairs,
    read_pairs,
    utkface_labels,
)
from facecore.evaluation.results import (
    FolderResult,
    LfwResult,
    LondonResult,
    PairsResult,
)
from facecore.matching.similarity import cosine

__all__ = ["folder", "lfw", "london", "pairs"]

# Fail at import: the intervals need SciPy only after the whole test set is embedded.
require_extra("scipy")

_FAR = (0.01, 0.001)


def lfw(
    engine: FaceEngine, root: Path, *, labels: Path | None = None, progress: bool = False
) -> LfwResult:
    """Measure ten-fold accuracy on the 6,000 pairs of LFW, and rates of all pairs of pictures.

    Each picture gives one crop, without flipping: the face nearest to the centre, because LFW's
    pictures are centred on the labelled person.

    Parameters
    ----------
    engine : FaceEngine
    root : Path
        Folder with ``pairs.txt`` and ``images/Name/Name_0001.jpg`` (or ``Name/...`` directly).
    labels : Path, optional
        CSV file of ``image,group`` with images named ``Name/Name_0001.jpg``.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InvalidParameter
        `root` has another layout, or a picture of a pair is missing.

    References
    ----------
    .. [1] G. Huang et al., "Labeled Faces in the Wild", UMass Amherst TR 07-49, 2007
    """
    if not os.path.isfile(root / "pairs.txt"):
        raise InvalidParameter(f"there is no pairs.txt in {root}", "give the folder of LFW")
    listed = read_lfw_pairs(root / "pairs.txt")
    images = root / "images" if os.path.isdir(root / "images") else root
    names = sorted({name for pair in listed for name in pair[2:]})
    if missing := [name for name in names if not os.path.isfile(images / name)]:
        raise InvalidParameter(f"{images} lacks {len(missing)} pictures, the first {missing[0]}")
    groups, notes = read_labels(labels, names) if labels else ({}, [])
    clock = Clock()
    embedded = embed_some(engine, [images / name for name in names], "central", progress)
    vectors, found = embedded.vectors, embedded.found
    clock.lap("embedding")
    row = {name: i for i, name in enumerate(names)}
    people = np.unique([name.partition("/")[0] for name in names], return_inverse=True)[1]
    first = np.array([row[pair[2]] for pair in listed])
    second = np.array([row[pair[3]] for pair in listed])
    fold, same = np.array([pair[0] for pair in listed]), np.array([pair[1] for pair in listed])
    usable = found[first] & found[second]
    similarity = cosine(vectors[first], vectors[second])  # NaN if a vector is missing
    accuracy = k_fold_accuracy(similarity, same, fold)
    stranger = ~same & usable  # pairs that were not compared are no false matches
    threshold = float(engine.calibration.similarity(engine.threshold))
    compared = compare_pictures(engine, vectors[found], people[found])
    grouped = by_group(engine, vectors, found, people, names, groups)
    tar_at_far = {
        far: tar_at_far_rate(
            similarity[same],
            similarity[stranger],
            far,
            genuine_people=people[first[same]],
            impostor_people=np.stack([people[first], people[second]], axis=1)[stranger],
        )
        for far in _FAR
    }
    clock.lap("comparing")
    return LfwResult(
        accuracy=float(accuracy.mean()),
        deviation=float(accuracy.std(ddof=1) / np.sqrt(len(accuracy))),
        fold_accuracy=tuple(accuracy.tolist()),
        tar_at_far=tar_at_far,
        fmr_at_threshold=fmr(similarity[stranger], threshold),
        fnmr_at_threshold=fnmr(similarity[same], threshold),
        pairs=len(listed),
        skipped=int((~usable).sum()),
        images=len(names),
        without_vector=embedded.counts(),
        threshold=engine.threshold,
        genuine_pairs=compared.genuine_pairs,
        impostor_pairs=compared.impostor_pairs,
        points=operating_points(engine, compared.fmr(), compared.fnmr()),
        groups=grouped,
        notes=tuple(notes),
        seconds=clock.seconds,
        histograms=compared.histograms,
    )


def london(engine: FaceEngine, root: Path, *, progress: bool = False) -> LondonResult:
    """Compare every neutral picture with every smiling one, at the engine's threshold.

    Parameters
    ----------
    engine : FaceEngine
    root : Path
        Folder with ``NNN_neutral.jpg`` and ``NNN_smiling.jpg``.
    progress : bool
        Show a progress bar.
    """
    neutral = sorted(root.glob("*_neutral.jpg"))
    smiling = [path.with_name(path.name.replace("_neutral", "_smiling")) for path in neutral]
    if len(neutral) < 2 or not all(map(os.path.isfile, smiling)):
        raise InvalidParameter(f"{root} does not hold pairs of NNN_neutral.jpg and NNN_smiling.jpg")
    clock = Clock()
    embedded = embed_some(engine, [*neutral, *smiling], "largest", progress)
    vectors = embedded.vectors
    clock.lap("embedding")
    count = len(neutral)
    similarity = vectors[:count].astype(np.float64) @ vectors[count:].T
    score = engine.calibration.score(similarity)
    passing = score >= engine.threshold
    genuine = np.eye(count, dtype=bool)
    one, other = np.nonzero(~genuine & ~np.isnan(similarity))
    own, strangers = similarity[genuine], similarity[one, other]
    pairs_of = np.stack([one, other], axis=1)
    thresholds = operating_thresholds(engine)
    false_match = [rate(strangers >= t, pairs_of) for t in thresholds] if len(one) else None
    false_non_match = [rate(~(own >= t), np.arange(count)) for t in thresholds]
    clock.lap("comparing")
    return LondonResult(
        genuine=count,
        genuine_passing=int(passing[genuine].sum()),
        impostor=count * (count - 1),
        impostor_passing=int(passing[~genuine].sum()),
        images=2 * count,
        without_vector=embedded.counts(),
        threshold=engine.threshold,
        lowest_genuine=float(score[genuine & ~np.isnan(score)].min(initial=100.0)),
        points=operating_points(engine, false_match, false_non_match),
        notes=("no rates by group: the set has no labels",),
        seconds=clock.seconds,
        histograms=Histograms.of(own[~np.isnan(own)], strangers),
    )


def pairs(engine: FaceEngine, file: Path, *, progress: bool = False) -> PairsResult:
    """Compare the pairs of a file of ``a,b,label`` lines, using each picture's largest face.

    Parameters
    ----------
    engine : FaceEngine
    file : Path
        See `facecore.evaluation.readers.read_pairs`.
    progress : bool
        Show a progress bar.
    """
    listed = read_pairs(file)
    paths = sorted({path for pair in listed for path in pair[:2]})
    if missing := [path for path in paths if not os.path.isfile(path)]:
        raise InvalidParameter(f"{file} names {len(missing)} missing files, first {missing[0]}")
    same = np.array([pair[2] for pair in listed])
    if same.all() or not same.any():
        raise InvalidParameter(f"{file} needs genuine and impostor pairs")
    clock = Clock()
    embedded = embed_some(engine, paths, "largest", progress)
    vectors = embedded.vectors
    clock.lap("embedding")
    row = {path: i for i, path in enumerate(paths)}
    similarity = cosine(
        vectors[[row[pair[0]] for pair in listed]], vectors[[row[pair[1]] for pair in listed]]
    )
    compared = ~np.isnan(similarity)
    own, strangers = similarity[same], similarity[~same & compared]
    if not len(strangers):
        raise InvalidParameter(f"no impostor pair in {file} could be compared")
    thresholds = operating_thresholds(engine)
    result = PairsResult(
        genuine=int(same.sum()),
        impostor=int((~same).sum()),
        skipped=int((~compared).sum()),
        tar_at_far={far: tar_at_far_rate(own, strangers, far) for far in _FAR},
        images=len(paths),
        without_vector=embedded.counts(),
        threshold=engine.threshold,
        points=operating_points(
            engine,
            [rate(strangers >= t) for t in thresholds],
            [rate(~(own >= t)) for t in thresholds],
        ),
        notes=("intervals assume independent pairs: a pairs file names no people",),
        seconds=clock.seconds,
        histograms=Histograms.of(own[~np.isnan(own)], strangers),
    )
    clock.lap("comparing")
    return result


def folder(
    engine: FaceEngine,
    root: Path,
    *,
    labels: Path | None = None,
    names: Literal["utkface"] | None = None,
    progress: bool = False,
) -> FolderResult:
    """Measure verification and identification on a folder with one folder per person.

    Each picture directly in `root` counts as another person.  If some show the same person,
    their pairs count as impostors and the false match rate is too high.

    Parameters
    ----------
    engine : FaceEngine
    root : Path
        See `facecore.evaluation.readers.read_folder`.
    labels : Path, optional
        CSV file of ``image,group``, with images named relative to `root`.
    names : {"utkface"}, optional
        Parse groups of age, gender and race from file names ``AGE_GENDER_RACE_*``.
    progress : bool
        Show a progress bar.
    """
    listed = read_folder(root)
    images = [name for name, _ in listed]
    groups, notes = read_labels(labels, images) if labels else ({}, [])
    if names == "utkface":
        more, noted = utkface_labels(images)
        groups, notes = {**groups, **more}, notes + noted
    elif names is not None:
        raise InvalidParameter(f"names is {names!r}", 'use "utkface"')
    clock = Clock()
    embedded = embed_some(engine, [root / name for name in images], "largest", progress)
    vectors, found = embedded.vectors, embedded.found
    clock.lap("embedding")
    if found.sum() < 2:
        raise InvalidParameter("only one picture gave a vector: there is nothing to compare")
    people = np.unique([person for _, person in listed], return_inverse=True)[1]
    compared = compare_pictures(engine, vectors[found], people[found])
    grouped = by_group(engine, vectors, found, people, images, groups)
    identification = identify(engine, vectors[found], people[found])
    clock.lap("comparing")
    if loose := sum(name == person for name, person in listed):
        notes.append(
            f"{loose:,} pictures lie directly in the folder, each counted as another person: "
            "if some show the same person, the FMR is an upper bound"
        )
    if without := int((~found).sum()):
        notes.append(f"{without:,} pictures without a vector were not compared")
    return FolderResult(
        people=compared.people,
        genuine_pairs=compared.genuine_pairs,
        impostor_pairs=compared.impostor_pairs,
        identification=identification,
        images=len(images),
        without_vector=embedded.counts(),
        threshold=engine.threshold,
        points=operating_points(engine, compared.fmr(), compared.fnmr()),
        groups=grouped,
        notes=tuple(notes),
        seconds=clock.seconds,
        histograms=compared.histograms,
    )
