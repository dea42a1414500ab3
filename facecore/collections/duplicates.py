"""Find pictures of the same person in a folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facecore.collections.faces import FoundFace
from facecore.gallery.duplicates import DuplicateSet, duplicate_sets
from facecore.matching.calibration import Calibration

__all__ = ["folder_duplicates"]


def folder_duplicates(
    faces: Sequence[FoundFace],
    table: Calibration,
    far: float = 0.001,
    *,
    threshold: float | None = None,
    progress: bool = False,
) -> list[DuplicateSet[FoundFace]]:
    """Find faces of the same person in different pictures.

    Parameters
    ----------
    faces : sequence of FoundFace
        From `read_folder`.
    table : Calibration
        Calibration of the engine that embedded the faces.
    far : float, default 0.001
        Probability that any pair of different people in the collection passes.
    threshold : float, optional
        Lowest score of a pair, 0..100, instead of the one that follows from `far`.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    InvalidParameter
        An argument is invalid, or the rate for one pair is lower than the calibration supports.
    """
    vectors = np.stack([face.vector for face in faces]) if faces else np.empty((0, 0), np.float32)
    apart = [[face.path for face in faces]]
    return duplicate_sets(
        faces, vectors, table, far, threshold=threshold, apart=apart, progress=progress
    )
