"""Measure which vectors of an embedder belong to faces that it cannot read.

Pictures of people are spoiled at random.  A spoiled face counts as unreadable where its vector
passes as strangers spoiled alike, or no longer passes as its own original.  A small network
learns to tell these vectors from those of readable faces, and the limit is set so that few
ordinary pictures of people it has not seen are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.engine import FaceEngine
from facecore.errors import FacecoreError, InvalidParameter, PackCorrupt
from facecore.evaluation.spoiling import Spoiling, draw, kind_of
from facecore.face.alignment import align
from facecore.face.detection import Face
from facecore.face.embedding import Embedder
from facecore.face.recognizability import Weights, encode_weights, features, recognizability
from facecore.images import load
from facecore.models.manifest import EmbedderSpec, read_manifest
from facecore.models.packs import load_pack
from facecore.models.session import create_session
from facecore.models.specs import RecognizabilitySpec

__all__ = [
    "ORIGINAL",
    "Measured",
    "SpoiledCrops",
    "collect",
    "fit",
    "measure",
    "measure_vectors",
    "spoiled_crops",
    "without_section",
    "write_section",
]

ORIGINAL = "as they are"
HIDDEN = 16

# Share of ordinary pictures that the limit refuses, a little less than the promised hundredth.
REFUSED = 0.008

# Share of strangers, spoiled alike, as whom an unreadable face passes at score 80, and a
# readable one at most; twice that among strangers spoiled in any way.
GATHERS, KEEPS = 0.005, 0.002

_LEAST_PEOPLE = 100


@dataclass(frozen=True, slots=True, eq=False)
class SpoiledCrops:
    """Aligned crops of pictures, as they are and spoiled.

    Attributes
    ----------
    crops : ndarray, shape (N, 112, 112, 3), uint8, BGR
    person : ndarray, shape (N,), str
    picture : ndarray, shape (N,), int
        Copies of one picture share a number.
    kind : ndarray, shape (N,), str
        `ORIGINAL`, or what spoils the crop most.
    held_out : ndarray, shape (N,), bool
        The limit is set on these people, and nothing is fitted on them.
    """

    crops: NDArray[np.uint8]
    person: NDArray[np.str_]
    picture: NDArray[np.int64]
    kind: NDArray[np.str_]
    held_out: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Result of `measure`.

    Attributes
    ----------
    spec : RecognizabilitySpec
    lines : tuple of str
        A table for people: for each kind, held-out people only, the share that is refused, and
        the share of strangers at score 80 before and after.
    """

    spec: RecognizabilitySpec
    lines: tuple[str, ...]


def spoiled_crops(
    picture: NDArray[np.uint8], face: Face, rng: np.random.Generator, copies: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the kind and the aligned crop of random spoilings of a picture.

    The landmarks are those of the original, moved as a detector moves them on a poor picture: a
    search costs more than all the rest.
    """
    for _ in range(copies):
        spoiling = draw(rng)
        points, forced = _moved(face, spoiling, rng), spoiling.turn and rng.random() < 0.3
        if forced:  # else the library finds the turned face as it stands
            points = _turned(points, face, 90.0 * spoiling.turn)
        spoilt = replace(spoiling, turn=0).apply(picture, face, seed=int(rng.integers(2**31)))
        yield kind_of(spoiling if forced else replace(spoiling, turn=0)), align(spoilt, points)


def _moved(face: Face, spoiling: Spoiling, rng: np.random.Generator) -> NDArray[np.float64]:
    """Landmarks that a detector might find on the spoiled picture."""
    points = face.landmarks.astype(np.float64)
    middle = points.mean(axis=0)
    harmed = (spoiling.line, spoiling.blur, spoiling.face_pixels, spoiling.gain < 0.3)
    poor = 1.0 if any(harmed) or spoiling.cover else 0.4
    points = _turned(points, face, float(rng.normal(0, 4) * poor))
    points = (points - middle) * float(np.exp(rng.normal(0, 0.04) * poor)) + middle
    points += rng.normal(0, 0.02, 2) * poor * face.size
    points += rng.normal(0, 0.012, (5, 2)) * poor * face.size
    found = not spoiling.tilt or rng.random() < 0.7
    return _turned(points, face, spoiling.tilt) if found else points


def _turned(points: NDArray[np.float64], face: Face, degrees: float) -> NDArray[np.float64]:
    """Landmarks turned clockwise around the middle of the face's box."""
    centre = face.box.reshape(2, 2).mean(axis=0)
    z = ((points - centre) @ np.array([1, 1j])) * np.exp(1j * np.radians(degrees))
    return np.asarray(np.stack([z.real, z.imag], axis=1) + centre, np.float64)


def collect(
    engine: FaceEngine, pictures: Iterable[tuple[str | None, Path]], copies: int = 3
) -> SpoiledCrops:
    """Spoil the pictures of people; a quarter of the people, by a hash, is held out.

    Raises
    ------
    InvalidParameter
        Fewer than 100 people have a picture with a face.
    """
    rng, kept = np.random.default_rng(1), []
    for number, (person, path) in enumerate(pictures):
        if person is None:
            continue
        try:
            picture = load(path)
            sample = engine.sample(picture)
        except FacecoreError:
            continue
        aside = int(hashlib.sha256(person.encode()).hexdigest(), 16) % 4 == 0
        made = [(ORIGINAL, sample.crop), *spoiled_crops(picture, sample.face, rng, copies)]
        kept += [(crop, person, number, kind, aside) for kind, crop in made]
    people = len({row[1] for row in kept})
    if people < _LEAST_PEOPLE:
        raise InvalidParameter(
            f"{people} people have a picture with a face, {_LEAST_PEOPLE} are needed"
        )
    columns = [np.array(column) for column in zip(*kept, strict=True)]
    return SpoiledCrops(*columns)


def fit(inputs: NDArray[np.float32], readable: NDArray[np.bool_], decay: float = 1e-3) -> Weights:
    """Fit the network of `facecore.face.recognizability` by logistic regression with L-BFGS.

    Parameters
    ----------
    inputs : ndarray, shape (N, K), float32
        Of deviation 1; they are scaled by the root of K.
    readable : ndarray, shape (N,), bool
        Both classes weigh the same.
    decay : float
        Weight of the squared parameters in the loss.
    """
    from scipy.optimize import minimize

    x, width = inputs, inputs.shape[1]
    sign = np.where(readable, 1.0, -1.0).astype(np.float32)
    weight = np.where(readable, 0.5 / readable.sum(), 0.5 / (~readable).sum()).astype(np.float32)
    ends = np.cumsum([width * HIDDEN, HIDDEN, HIDDEN])

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        first, bias, last, offset = np.split(flat.astype(np.float32), ends)
        first = first.reshape(width, HIDDEN)
        hidden = np.maximum(x @ first + bias, 0)
        margin = sign * (hidden @ last + offset)
        slope = -sign * weight / (1 + np.exp(margin))
        behind = slope[:, None] * last * (hidden > 0)
        parts = (x.T @ behind, behind.sum(0), hidden.T @ slope, slope.sum(keepdims=True))
        gradient = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
        value = float(weight @ np.logaddexp(0, -margin)) + decay / 2 * float(flat @ flat)
        return value, gradient + decay * flat

    rng = np.random.default_rng(1)
    start = np.concatenate([
        rng.normal(0, width**-0.5, width * HIDDEN), np.zeros(HIDDEN),
        rng.normal(0, HIDDEN**-0.5, HIDDEN), np.zeros(1),
    ])  # fmt: skip
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    first, bias, last, offset = np.split(best.astype(np.float32), ends)
    return first.reshape(width, HIDDEN), bias, last, offset


def measure(pack: str | Path, spoiled: SpoiledCrops, dataset: str) -> Measured:
    """Measure the recognisability of a pack's embedder.

    Parameters
    ----------
    pack : str or Path
        As in `facecore.FaceEngine`.
    spoiled : SpoiledCrops
        Aligned by any detector: the file serves every embedder.
    dataset : str
        Its name.
    """
    loaded = load_pack(pack)
    session = create_session(loaded.embedder, threads=1, name="embedder")
    embedder, crops = Embedder(session, loaded.pack.embedder), spoiled.crops
    vectors, seen = [], []
    for i in range(0, len(crops), 32):
        some = np.asarray(crops[i : i + 32])
        vectors.append(embedder.embed(some))
        seen += [features(crop) for crop in some]
    return measure_vectors(
        loaded.pack.embedder, np.concatenate(vectors), np.stack(seen), spoiled, dataset
    )


def measure_vectors(
    embedder: EmbedderSpec,
    vectors: NDArray[np.float32],
    seen: NDArray[np.float32],
    spoiled: SpoiledCrops,
    dataset: str,
) -> Measured:
    """`measure`, of vectors and features of the crops that exist already."""
    original = spoiled.kind == ORIGINAL
    threshold = _threshold(embedder, vectors[original], spoiled.person[original])
    gathering = _gathering(vectors, spoiled, threshold)
    anywhere = _anywhere(vectors, spoiled, threshold)
    numbers = {number: i for i, number in enumerate(spoiled.picture) if original[i]}
    own = np.einsum("nd,nd->n", vectors, vectors[[numbers[n] for n in spoiled.picture]])
    lost = (gathering > GATHERS) | (anywhere > 2 * GATHERS) | (own < threshold)
    clear = (gathering <= KEEPS) & (anywhere <= 2 * KEEPS) & (own >= threshold)
    unreadable, readable = lost & ~original, clear | original
    weights = _fit_all(vectors, seen, readable, ~spoiled.held_out & (unreadable | readable))
    scores = recognizability(np.hstack([vectors, seen]), weights)
    ordinary = scores[original & spoiled.held_out]
    limit = round(float(np.clip(np.quantile(ordinary, REFUSED), 0.1, 99.9)), 2)
    refused = float((ordinary < limit).mean())
    spec = RecognizabilitySpec(
        dataset, limit, round(refused, 5), HIDDEN, encode_weights(weights), embedder.sha256
    )
    return Measured(spec, tuple(_table(vectors, scores, spoiled, threshold, limit)))


def _fit_all(
    vectors: NDArray[np.float32],
    seen: NDArray[np.float32],
    readable: NDArray[np.bool_],
    used: NDArray[np.bool_],
) -> Weights:
    """`fit` on scaled inputs; the weights take them as they are."""
    scale = np.hstack([np.full(vectors.shape[1], vectors.shape[1] ** -0.5), seen.std(0) + 1e-3])
    centre = np.hstack([np.zeros(vectors.shape[1]), seen.mean(0)])
    inputs = ((np.hstack([vectors, seen]) - centre) / scale).astype(np.float32)
    first, bias, last, offset = fit(inputs[used], readable[used])
    first = (first / scale[:, None]).astype(np.float32)
    return first, (bias - centre @ first).astype(np.float32), last, offset


def without_section(lines: Iterable[str]) -> list[str]:
    """The lines of a manifest without the section of the recognisability."""
    kept, inside = [], False
    for line in lines:
        if line.strip() == "[embedder.recognizability]":
            inside = True
        elif not inside:
            kept.append(line)
        elif not line.strip():  # the blank line after the section goes with it
            inside = False
    return kept


def write_section(manifest: Path, spec: RecognizabilitySpec) -> None:
    """Put the section into a ``pack.toml``, in the place of an old one; all other lines stay.

    Raises
    ------
    PackCorrupt
        The manifest would be invalid; the file is unchanged.
    """
    kept = without_section(manifest.read_text(encoding="utf-8").splitlines())
    output = next(i for i, line in enumerate(kept) if line.strip() == "[embedder.output]")
    after = range(output + 1, len(kept))
    at = next((i for i in after if kept[i].lstrip()[:1] in ("[", "#")), len(kept))
    fields = [f"{name} = {json.dumps(value)}" for name, value in asdict(spec).items()]
    indent = kept[output][: -len(kept[output].lstrip())]
    block = [f"{indent}{line}" for line in ("[embedder.recognizability]", *fields)]
    kept[at:at] = [*block, ""] if at < len(kept) else ["", *block, ""]
    partial = manifest.with_suffix(".new")
    partial.write_text("\n".join(kept) + "\n", encoding="utf-8")
    try:
        read_manifest(partial)
    except PackCorrupt:
        partial.unlink()
        raise
    partial.replace(manifest)


def _threshold(
    embedder: EmbedderSpec, vectors: NDArray[np.float32], person: NDArray[np.str_]
) -> float:
    """Cosine of score 80: of the pack's table, or counted where it has none."""
    if embedder.calibration is not None:
        return next(k.similarity for k in embedder.calibration.knots if k.score == 80)
    apart = np.triu(person[:, None] != person[None], 1)
    return float(np.quantile((vectors @ vectors.T)[apart], 0.999))


def _gathering(
    vectors: NDArray[np.float32], spoiled: SpoiledCrops, threshold: float
) -> NDArray[np.float64]:
    """For each crop, the share of strangers of the same kind as whom it passes."""
    shares = np.zeros(len(vectors))
    for kind in np.unique(spoiled.kind):
        (rows,) = np.nonzero(spoiled.kind == kind)
        apart = spoiled.person[rows][:, None] != spoiled.person[rows][None]
        passing = (vectors[rows] @ vectors[rows].T >= threshold) & apart
        shares[rows] = passing.sum(axis=1) / np.maximum(apart.sum(axis=1), 1)
    return shares


def _anywhere(
    vectors: NDArray[np.float32], spoiled: SpoiledCrops, threshold: float
) -> NDArray[np.float64]:
    """For each crop, the share of strangers, spoiled in any way, as whom it passes."""
    (others,) = np.nonzero(~spoiled.held_out & (spoiled.kind != ORIGINAL))
    shares = []
    for i in range(0, len(vectors), 1000):
        passing = vectors[i : i + 1000] @ vectors[others].T >= threshold
        apart = spoiled.person[i : i + 1000, None] != spoiled.person[others]
        shares.append((passing & apart).mean(axis=1))
    return np.concatenate(shares)


def _table(
    vectors: NDArray[np.float32],
    scores: NDArray[np.float32],
    spoiled: SpoiledCrops,
    threshold: float,
    limit: float,
) -> Iterator[str]:
    yield f"limit {limit}; held-out people   refused   strangers at 80   of those not refused"
    for kind in dict.fromkeys(spoiled.kind[spoiled.held_out].tolist()):
        (rows,) = np.nonzero(spoiled.held_out & (spoiled.kind == kind))
        keep = scores[rows] >= limit
        apart = np.triu(spoiled.person[rows][:, None] != spoiled.person[rows][None], 1)
        passing = vectors[rows] @ vectors[rows].T >= threshold
        left = apart & keep & keep[:, None]
        after = f"{passing[left].mean():.3%}" if left.any() else "none"
        before = f"{passing[apart].mean():.3%}"
        yield f"{kind:<24}{len(rows):>6}{1 - keep.mean():>11.1%}{before:>18}{after:>18}"
