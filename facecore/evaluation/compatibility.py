"""Measure whether the vectors of two packs are interchangeable between gallery and probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter

__all__ = ["Interchange", "compare_variants"]


@dataclass(frozen=True, slots=True)
class Interchange:
    """Result of `compare_variants`; comparisons are ordered (gallery, probe) pairs.

    Attributes
    ----------
    cosine_mean, cosine_low : float
        Mean and first percentile of the cosine between the two vectors of a picture.
    pictures, genuine, impostor : int
        Number of pictures with both vectors, and of comparisons among them.
    thresholds, fmr, mixed_fmr, fnmr, mixed_fnmr : tuple of float
        Thresholds and error rates: within the gallery's pack, and between the two packs.
    """

    cosine_mean: float
    cosine_low: float
    pictures: int
    genuine: int
    impostor: int
    thresholds: tuple[float, ...]
    fmr: tuple[float, ...]
    mixed_fmr: tuple[float, ...]
    fnmr: tuple[float, ...]
    mixed_fnmr: tuple[float, ...]


def compare_variants(
    gallery: NDArray[np.float32],
    probes: NDArray[np.float32],
    people: ArrayLike,
    thresholds: ArrayLike,
) -> Interchange:
    """Compare the vectors of two packs for the same pictures.

    Parameters
    ----------
    gallery, probes : ndarray, shape (N, D), float32
        Unit vectors of N pictures from the two packs; a row of NaN for a picture without a
        vector.
    people : array_like, shape (N,)
        Person in each picture.
    thresholds : array_like, shape (T,)
        Similarities of the gallery's pack.

    Raises
    ------
    InvalidParameter
        Mismatched shapes, or no genuine or no impostor comparison.
    """
    person = np.asarray(people)
    if gallery.shape != probes.shape or gallery.ndim != 2 or person.shape != gallery.shape[:1]:
        raise InvalidParameter(
            f"vectors {gallery.shape} and {probes.shape} of {person.size} pictures do not match",
            "give one row per picture for both packs",
        )
    both = ~(np.isnan(gallery).any(axis=1) | np.isnan(probes).any(axis=1))
    gallery, probes, person = gallery[both], probes[both], person[both]
    same = person[:, None] == person[None]
    genuine, impostor = same & ~np.eye(len(person), dtype=bool), ~same
    if not genuine.any() or not impostor.any():
        raise InvalidParameter("genuine and impostor comparisons are needed")
    cosines = np.einsum("ij,ij->i", gallery, probes, dtype=np.float64)
    limits = np.asarray(thresholds, np.float64).ravel()
    own, mixed = gallery @ gallery.T, gallery @ probes.T

    def rates(values: NDArray[np.float32], above: bool) -> tuple[float, ...]:
        return tuple(float(((values >= t) == above).mean()) for t in limits)

    return Interchange(
        cosine_mean=float(cosines.mean()),
        cosine_low=float(np.quantile(cosines, 0.01)),
        pictures=len(person),
        genuine=int(genuine.sum()),
        impostor=int(impostor.sum()),
        thresholds=tuple(limits.tolist()),
        fmr=rates(own[impostor], above=True),
        mixed_fmr=rates(mixed[impostor], above=True),
        fnmr=rates(own[genuine], above=False),
        mixed_fnmr=rates(mixed[genuine], above=False),
    )
