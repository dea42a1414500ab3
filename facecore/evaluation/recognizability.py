"""Measure which vectors of an embedder belong to faces that it cannot read.

It needs pictures of a few people from one source that are spoiled in the same way
(`facecore.evaluation.spoiled_crops`).  A spoiled face counts as unreadable if strangers of its
group match each other, or if it no longer matches its original.  A small network learns to separate
the vectors of unreadable and readable faces.  The limit refuses few ordinary pictures of held-out
people.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore._utils.atomic_files import written_whole
from facecore.errors import InvalidParameter
from facecore.evaluation.spoiled_crops import ORIGINAL, SpoiledCrops
from facecore.face.embedding import Embedder
from facecore.face.measures.visibility import limits
from facecore.face.recognizability import (
    CLEAR,
    Weights,
    allowance,
    encode_weights,
    features,
    read_weights,
    recognizability,
)
from facecore.models.manifest import EmbedderSpec, read_manifest
from facecore.models.packs import load_pack
from facecore.models.session import create_session
from facecore.models.specs import RecognizabilitySpec

__all__ = [
    "Measured",
    "fit",
    "measure",
    "measure_vectors",
    "without_section",
    "write_section",
]

HIDDEN = 32

# Share of ordinary pictures that the limit refuses.
REFUSED = 0.004

# Label a spoiled face unreadable if it matches more than this share of strangers at score 80:
# OF_GROUP, mean over its group; OWN, the face within its group; ANYWHERE, the face among strangers
# spoiled in any way.
OF_GROUP, OWN, ANYWHERE = 0.003, 0.005, 0.01

# Choose the smallest allowance, at most MOST, that keeps the FMR of every kind of spoiling at or
# below PASSING.  A larger one rejects more genuine pairs than impostor pairs.  Turned crops do not
# count, because the library turns faces back before it aligns them.
PASSING, MOST = 0.001, 0.35
_TURNED_BACK = ("turned", "upside down", "on their side")

_LEAST_ALIKE = 8  # fewest strangers of each crop in a group that is counted


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Result of `measure`.

    Attributes
    ----------
    spec : RecognizabilitySpec
    lines : tuple of str
        A readable table of held-out people, by kind: the share of refused crops, and the FMR at
        score 80 within a group: of all pairs, of pairs without a refused crop, and of the latter
        with the allowance.
    """

    spec: RecognizabilitySpec
    lines: tuple[str, ...]


def fit(inputs: NDArray[np.float32], readable: NDArray[np.bool_], decay: float = 1e-4) -> Weights:
    """Fit the network of `facecore.face.recognizability` by logistic regression with L-BFGS.

    Parameters
    ----------
    inputs : ndarray, shape (N, K), float32
        Standardised: each column has a standard deviation of about 1.
    readable : ndarray, shape (N,), bool
        Both classes have the same total weight.
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


def measure(
    pack: str | Path,
    spoiled: SpoiledCrops,
    dataset: str,
    gate: RecognizabilitySpec | None = None,
) -> Measured:
    """Measure the recognisability of a pack's embedder.

    Parameters
    ----------
    pack : str or Path
        As in `facecore.FaceEngine`.
    spoiled : SpoiledCrops
        Crops aligned by any detector; the same crops serve every embedder.
    dataset : str
        Name of the data set.
    gate : RecognizabilitySpec, optional
        Gate of a pack with the same contract.  Its network, limit and allowance are kept; only the
        share of refused pictures and the table are measured.  By default, a gate is fitted.

    Raises
    ------
    InvalidParameter
        The gate belongs to vectors of another dimension.
    """
    loaded = load_pack(pack)
    session = create_session(loaded.embedder, threads=1, name="embedder")
    embedder, crops = Embedder(session, loaded.pack.embedder), spoiled.crops
    vectors, seen, least = [], [], []
    for i in range(0, len(crops), 32):
        some = np.asarray(crops[i : i + 32])
        vectors.append(embedder.embed(some))
        seen += [features(crop) for crop in some]
        least += [min(limits(crop).values()) for crop in some]
    return measure_vectors(
        loaded.pack.embedder,
        np.concatenate(vectors),
        np.stack(seen),
        np.array(least, np.float32),
        spoiled,
        dataset,
        gate,
    )


def measure_vectors(
    embedder: EmbedderSpec,
    vectors: NDArray[np.float32],
    seen: NDArray[np.float32],
    least: NDArray[np.float32],
    spoiled: SpoiledCrops,
    dataset: str,
    gate: RecognizabilitySpec | None = None,
) -> Measured:
    """Run `measure` on precomputed vectors, `features` and least `limits` of the crops."""
    original = spoiled.kind == ORIGINAL
    threshold = _threshold(embedder, vectors[original], spoiled.person[original])
    numbers = {number: i for i, number in enumerate(spoiled.picture) if original[i]}
    before = vectors[[numbers[n] for n in spoiled.picture]]
    inputs, unseen = np.hstack([vectors, seen]), original & spoiled.held_out
    if gate is None:
        weights = _scaled(_fit_all(vectors, before, seen, spoiled, threshold), inputs[unseen])
    else:
        weights = read_weights(gate)
        if len(weights[0]) != inputs.shape[1]:
            raise InvalidParameter("the gate belongs to vectors of another dimension")
    scores = np.minimum(recognizability(inputs, weights), least)
    ordinary = scores[unseen]
    pairs = _Pairs.of(vectors, before, scores, spoiled, threshold)
    if gate is None:
        limit = round(float(np.clip(np.quantile(ordinary, REFUSED), 0.1, 99.9)), 2)
        largest, text = _least_allowance(pairs, limit, threshold), encode_weights(weights)
        gate = RecognizabilitySpec(dataset, limit, 0, HIDDEN, text, embedder.sha256, largest)
    refused = round(float((ordinary < gate.limit).mean()), 5)
    spec = replace(gate, refused=refused, embedder=embedder.sha256)
    lines = _table(pairs, scores, spoiled, spec, threshold)
    return Measured(spec, tuple(lines))


def _unreadable(
    vectors: NDArray[np.float32],
    before: NDArray[np.float32],
    spoiled: SpoiledCrops,
    threshold: float,
) -> NDArray[np.bool_]:
    """Label the crops that match too many strangers, or no longer match their originals."""
    of_group, own = _gathering(vectors, before, spoiled, threshold)
    lost = (of_group > OF_GROUP) | (own > OWN)
    lost |= _anywhere(vectors, spoiled, threshold) > ANYWHERE
    lost |= np.einsum("nd,nd->n", vectors, before) < threshold
    return lost


def _fit_all(
    vectors: NDArray[np.float32],
    before: NDArray[np.float32],
    seen: NDArray[np.float32],
    spoiled: SpoiledCrops,
    threshold: float,
) -> Weights:
    """Run `fit` on scaled inputs; return weights for unscaled inputs."""
    readable = spoiled.kind == ORIGINAL
    # Spoiled crops that are still readable are used for neither class: the same spoiling harms
    # other sources, so their label is uncertain.
    used = ~spoiled.held_out & (readable | _unreadable(vectors, before, spoiled, threshold))
    scale = np.hstack([np.full(vectors.shape[1], vectors.shape[1] ** -0.5), seen.std(0) + 1e-3])
    centre = np.hstack([np.zeros(vectors.shape[1]), seen.mean(0)])
    inputs = ((np.hstack([vectors, seen]) - centre) / scale).astype(np.float32)
    first, bias, last, offset = fit(inputs[used], readable[used])
    first = (first / scale[:, None]).astype(np.float32)
    return first, (bias - centre @ first).astype(np.float32), last, offset


def _scaled(weights: Weights, ordinary: NDArray[np.float32]) -> Weights:
    """Rescale the weights so that scores mean the same for every embedder.

    A twentieth of the held-out people's ordinary pictures scores below 50, a fifth below 95.
    """
    first, bias, last, offset = weights
    answer = np.maximum(ordinary @ first + bias, 0) @ last + offset
    low, high = np.quantile(answer, [0.05, 0.2])
    slope = np.float32(math.log(CLEAR / (100 - CLEAR)) / max(high - low, 1e-3))
    return first, bias, last * slope, (offset - np.float32(low)) * slope


def without_section(lines: Iterable[str]) -> list[str]:
    """Return a manifest's lines without the section ``[embedder.recognizability]``."""
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
    """Write the section into a ``pack.toml``, in place of an old one; keep all other lines.

    Raises
    ------
    PackCorrupt
        The manifest would be invalid; the file is unchanged.
    InvalidParameter
        The file cannot be read or written; it is unchanged.
    """
    with written_whole(manifest) as stream:
        lines = _with_section(manifest.read_text(encoding="utf-8").splitlines(), spec)
        stream.write(("\n".join(lines) + "\n").encode())
        stream.flush()
        read_manifest(Path(stream.name))


def _with_section(lines: Iterable[str], spec: RecognizabilitySpec) -> list[str]:
    kept = without_section(lines)
    output = next(i for i, line in enumerate(kept) if line.strip() == "[embedder.output]")
    after = range(output + 1, len(kept))
    at = next((i for i in after if kept[i].lstrip()[:1] in ("[", "#")), len(kept))
    fields = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in asdict(spec).items()
    ]
    indent = kept[output][: -len(kept[output].lstrip())]
    block = [f"{indent}{line}" for line in ("[embedder.recognizability]", *fields)]
    kept[at:at] = [*block, ""] if at < len(kept) else ["", *block, ""]
    return kept


def _threshold(
    embedder: EmbedderSpec, vectors: NDArray[np.float32], person: NDArray[np.str_]
) -> float:
    """Return the cosine at score 80: from the pack's calibration, or measured if it has none."""
    if embedder.calibration is not None:
        return next(k.similarity for k in embedder.calibration.knots if k.score == 80)
    apart = np.triu(person[:, None] != person[None], 1)
    return float(np.quantile((vectors @ vectors.T)[apart], 0.999))


def _gathering(
    vectors: NDArray[np.float32],
    before: NDArray[np.float32],
    spoiled: SpoiledCrops,
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate, for each crop, the mean FMR of its group and the crop's FMR within the group.

    A group is too small to count one match in a thousand.  The FMR is the tail of a normal
    distribution with the mean of the crop's similarities and the group's standard deviation.
    """
    from scipy.special import ndtr

    of_group, own = np.zeros(len(vectors)), np.zeros(len(vectors))
    for rows, similarity, apart in _alike(vectors, before, spoiled, threshold):
        count = apart.sum(axis=1)
        if count.min() < _LEAST_ALIKE:
            continue
        mean = (similarity * apart).sum(axis=1) / count
        deviation = np.sqrt(np.square(similarity - mean[:, None])[apart].mean())
        own[rows] = ndtr((mean - threshold) / deviation)
        of_group[rows] = own[rows].mean()
    return of_group, own


def _alike(
    vectors: NDArray[np.float32],
    before: NDArray[np.float32],
    spoiled: SpoiledCrops,
    threshold: float,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield each group's rows, their similarities, and a mask of the impostor pairs.

    The mask excludes pairs whose originals match: a source can list a person under two names.
    """
    order = np.argsort(spoiled.group, kind="stable")
    starts = np.flatnonzero(np.diff(spoiled.group[order])) + 1
    for rows in np.split(order, starts):
        person = spoiled.person[rows]
        apart = (person[:, None] != person) & (before[rows] @ before[rows].T < threshold)
        yield rows, vectors[rows] @ vectors[rows].T, apart


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Impostor pairs of held-out groups: similarity, recognisability of both, kind."""

    similarity: NDArray[np.float32]
    worse: NDArray[np.float32]
    better: NDArray[np.float32]
    kind: NDArray[np.str_]

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        before: NDArray[np.float32],
        scores: NDArray[np.float32],
        spoiled: SpoiledCrops,
        threshold: float,
    ) -> _Pairs:
        parts = []
        for rows, similarity, apart in _alike(vectors, before, spoiled, threshold):
            if spoiled.held_out[rows[0]]:
                first, second = np.nonzero(np.triu(apart, 1))
                a, b = scores[rows[first]], scores[rows[second]]
                kind = np.full(len(first), spoiled.kind[rows[0]])
                parts.append((similarity[first, second], np.minimum(a, b), np.maximum(a, b), kind))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def passing(self, threshold: float, largest: float) -> NDArray[np.bool_]:
        return self.similarity - allowance(self.better, largest) >= threshold


def _least_allowance(pairs: _Pairs, limit: float, threshold: float) -> float:
    """Find the least allowance, at most `MOST`, that keeps the FMR of all kinds at `PASSING`."""
    left = pairs.worse >= limit
    spoiled = left & ~np.isin(pairs.kind, (ORIGINAL, *_TURNED_BACK))
    kinds = [spoiled & (pairs.kind == kind) for kind in np.unique(pairs.kind)]
    # A kind with fewer pairs cannot show this FMR.  With few people, pool all kinds.
    kinds = [kind for kind in kinds if kind.sum() * PASSING >= 1] or [spoiled]
    for largest in np.arange(0, MOST, 0.01):
        passing = pairs.passing(threshold, largest)
        if all(passing[kind].sum() <= PASSING * kind.sum() for kind in kinds):
            return round(float(largest), 2)
    return MOST


def _anywhere(
    vectors: NDArray[np.float32], spoiled: SpoiledCrops, threshold: float
) -> NDArray[np.float64]:
    """Measure the share of strangers, spoiled in any way, that each crop matches."""
    (others,) = np.nonzero(~spoiled.held_out & (spoiled.kind != ORIGINAL))
    shares = []
    for i in range(0, len(vectors), 1000):
        passing = vectors[i : i + 1000] @ vectors[others].T >= threshold
        apart = spoiled.person[i : i + 1000, None] != spoiled.person[others]
        shares.append((passing & apart).mean(axis=1))
    return np.concatenate(shares)


def _table(
    pairs: _Pairs,
    scores: NDArray[np.float32],
    spoiled: SpoiledCrops,
    spec: RecognizabilitySpec,
    threshold: float,
) -> Iterator[str]:
    yield f"limit {spec.limit}, allowance {spec.allowance}; both were set on held-out people"
    yield "kind, crops, refused; strangers at 80; those not refused; with the allowance"
    before, after = pairs.passing(threshold, 0), pairs.passing(threshold, spec.allowance)
    left = pairs.worse >= spec.limit
    for kind in dict.fromkeys(spoiled.kind[spoiled.held_out].tolist()):
        crops = scores[spoiled.held_out & (spoiled.kind == kind)]
        mine = pairs.kind == kind
        shares = [
            f"{passing[chosen].mean():.3%}" if chosen.any() else "none"
            for passing, chosen in ((before, mine), (before, mine & left), (after, mine & left))
        ]
        refused = float((crops < spec.limit).mean())
        yield f"{kind:<24}{len(crops):>6}{refused:>8.1%}" + "".join(f"{s:>10}" for s in shares)
