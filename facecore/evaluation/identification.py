"""Error rates of a search in a gallery, named as in ISO/IEC 19795-1.

A search is mated if the person has a template in the gallery.  A candidate is a template at or
above the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.evaluation.intervals import Rate, rate

__all__ = ["Searches", "search_all"]

_BLOCK_CELLS = 1 << 21


@dataclass(frozen=True, slots=True)
class Searches:
    """Outcomes of searches in a gallery.

    Attributes
    ----------
    people : ndarray, shape (Q,)
        Person of each probe.
    mate : ndarray, shape (Q,), float32
        Similarity of the person's best template; NaN for a non-mated search.
    rank : ndarray, shape (Q,), int64
        1 + the number of other people's templates that are at least as similar: ties count
        against the system.  0 for a non-mated search.
    top : ndarray, shape (Q,), float32
        Highest similarity of another person's template; -inf if the gallery has none.

    References
    ----------
    .. [1] ISO/IEC 19795-1:2021, identification metrics
    .. [2] P. Grother, M. Ngan and K. Hanaoka, "Face Recognition Vendor Test part 2:
           identification", NISTIR 8271, 2019, doi:10.6028/NIST.IR.8271
    """

    people: NDArray[np.generic]
    mate: NDArray[np.float32]
    rank: NDArray[np.int64]
    top: NDArray[np.float32]

    def fpir(self, threshold: float) -> Rate:
        """False positive identification rate: share of non-mated searches with a candidate."""
        alone = self.rank == 0
        if not alone.any():
            raise InvalidParameter("every search has a mate: the FPIR is undefined")
        return rate(self.top[alone] >= threshold, self.people[alone])

    def fnir(self, threshold: float = -1.0, rank: int | None = None) -> Rate:
        """False negative identification rate: share of mated searches that miss the mate.

        Parameters
        ----------
        threshold : float
            Lowest similarity of a candidate.
        rank : int, optional
            Number of top candidates that must include the mate; by default unlimited.
        """
        mated = self.rank > 0
        if not mated.any():
            raise InvalidParameter("no search has a mate: the FNIR is undefined")
        missed = self.mate[mated] < threshold
        if rank is not None:
            missed |= self.rank[mated] > rank
        return rate(missed, self.people[mated])

    def cmc(self, ranks: int = 20) -> NDArray[np.float64]:
        """Cumulative match characteristic: share of mated searches by rank 1..`ranks`.

        Returns
        -------
        ndarray, shape (ranks,), float64
            Element k - 1 is the rank-k identification rate, without a threshold.
        """
        mated = self.rank[self.rank > 0]
        if not len(mated) or ranks < 1:
            raise InvalidParameter("a CMC needs a mated search and at least one rank")
        within = mated[:, None] <= np.arange(1, ranks + 1)
        return np.asarray(within.mean(axis=0), np.float64)


def search_all(
    probes: NDArray[np.float32],
    probe_people: ArrayLike,
    gallery: NDArray[np.float32],
    gallery_people: ArrayLike,
) -> Searches:
    """Search a gallery exhaustively for every probe, in blocks of probes.

    Parameters
    ----------
    probes : ndarray, shape (Q, D), float32
    probe_people : array_like, shape (Q,)
    gallery : ndarray, shape (G, D), float32
    gallery_people : array_like, shape (G,)
        A person may have several templates.
    """
    searched, enrolled = np.asarray(probe_people), np.asarray(gallery_people)
    fits = len(probes) == len(searched) > 0 and len(gallery) == len(enrolled) > 0
    if not fits or probes.shape[1:] != gallery.shape[1:]:
        raise InvalidParameter("each probe and each template needs a vector and a person")
    mate = np.full(len(probes), np.nan, np.float32)
    top = np.full(len(probes), -np.inf, np.float32)
    rank = np.zeros(len(probes), np.int64)
    rows = max(1, _BLOCK_CELLS // len(gallery))
    for start in range(0, len(probes), rows):
        part = slice(start, start + rows)
        similarity = probes[part] @ gallery.T
        own = searched[part, None] == enrolled
        others = np.where(own, np.float32(-np.inf), similarity)
        best = np.where(own, similarity, np.float32(-np.inf)).max(axis=1)
        mated = own.any(axis=1)
        top[part] = others.max(axis=1)
        mate[part] = np.where(mated, best, np.float32(np.nan))
        rank[part] = np.where(mated, 1 + (others >= best[:, None]).sum(axis=1), 0)
    return Searches(searched, mate, rank, top)
